"""Results of `tests.benchmarks.held_out` over seeds: records in, text out."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.benchmarks.intervals import Mean, mean, paired

Record = dict[str, Any]
RANDOM = "random"
UNTRAINED = "untrained"
LOSS = "held_out"


def values(records: Sequence[Record], arm: str, what: str) -> list[float]:
    """A value per seed."""
    found = [record[what] for record in records if record["arm"] == arm]
    return [float("nan") if value is None else value for value in found]


def against_random(records: Sequence[Record], arm: str) -> Mean:
    """Held-out loss less that of random rows, seed by seed; below 0 is better."""
    return paired(values(records, arm, LOSS), values(records, RANDOM, LOSS))


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Mean held-out losses on the noisy and on the untouched rows."""
    found: dict[str, Any] = {}
    for name, group in _groups(records):
        for arm in _arms(group):
            after = mean(values(group, arm, LOSS))
            found[f"{arm}_{name}"] = round(after.value, 5)
            difference = against_random(group, arm)
            found[f"{arm}_minus_random_{name}"] = round(difference.value, 5)
    return found


def markdown(records: Sequence[Record]) -> str:
    """A table of the noisy and one of the untouched rows."""
    lines = ["# Held-out loss after the same training", ""]
    lines.append(
        "Mean cross-entropy of unseen clean answers in nats per token; ± is half a "
        "95 % t interval over seeds."
    )
    for name, group in _groups(records):
        seeds = len({record["seed"] for record in group})
        lines += ["", f"## {name} rows, {seeds} seed(s)", ""]
        lines += _table(group)
    return "\n".join(lines) + "\n"


def _table(records: Sequence[Record]) -> Iterator[str]:
    titles = ("rows", "number", "planted, %", "held-out loss", "minus random")
    yield f"| {' | '.join(titles)} |"
    yield "|---|--:|--:|--:|--:|"
    for arm in sorted(
        _arms(records), key=lambda arm: mean(values(records, arm, LOSS)).value
    ):
        number = mean(values(records, arm, "kept_rows")).value
        noise = mean(values(records, arm, "kept_noise"))
        after = mean(values(records, arm, LOSS))
        yield (
            f"| {arm} | {number:.0f} | {noise.text()} | {after.text(4, 1)} "
            f"| {against_random(records, arm).text(4, 1)} |"
        )


def _groups(records: Sequence[Record]) -> Iterator[tuple[str, list[Record]]]:
    for name, noisy in (("noisy", True), ("untouched", False)):
        group = [record for record in records if (record["noise"] > 0) == noisy]
        if group:
            yield name, group


def _arms(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["arm"] for record in records))
