"""What a finished chain left behind as numbers, and those numbers as a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from axolotl_donod.pruning.table import read_scores
from tests.benchmarks.real_data import SEGMENTS, Row, split_response
from tests.runs import log_history

WHOLE = "whole response"


def chain_results(out: Path, files: dict[str, list[Row]]) -> dict[str, Any]:
    """Rows by source, held-out loss, and margins and accuracies per segment."""
    sft, alignment = log_history(out / "sft"), log_history(out / "alignment")
    star1 = files["pairs_star1_held"]
    return {
        "rows": rows_by_source(out / "donod/scores.parquet"),
        "held_out_loss": _change(sft, "eval_loss"),
        "held_out_pairs": {
            name: {
                "margin": _change(alignment, f"{prefix}/margins"),
                "accuracy": _change(alignment, f"{prefix}/accuracies"),
            }
            for name, prefix in _prefixes()
        },
        "held_out_pairs_with_reasoning": len(star1),
        "of_these_with_other_reasoning": sum(
            split_response(row["chosen"])[0] != split_response(row["rejected"])[0]
            for row in star1
        ),
    }


def _prefixes() -> Iterator[tuple[str, str]]:
    yield WHOLE, "eval_rewards"
    for segment in SEGMENTS:
        yield segment, f"eval_rewards/{segment}"


def rows_by_source(scores: Path) -> dict[str, dict[str, int]]:
    """How many rows of each file were kept and removed."""
    table = read_scores(scores)
    found: dict[str, dict[str, int]] = {}
    for source, kept in zip(table["source"], table["kept"], strict=True):
        name = Path(source.split(":")[0]).stem
        counts = found.setdefault(name, {"kept": 0, "removed": 0})
        counts["kept" if kept else "removed"] += 1
    return dict(sorted(found.items()))


def _change(log: list[dict[str, Any]], key: str) -> dict[str, float]:
    series = [entry[key] for entry in log if key in entry]
    return {"before": series[0], "after": series[-1]}


def table(result: dict[str, Any]) -> str:
    """The numbers for people."""
    lines = ["Rows by source             kept  removed"]
    for name, counts in result["rows"].items():
        lines.append(f"  {name:<23} {counts['kept']:>6} {counts['removed']:>8}")
    lines += ["", "Held-out                        before     after"]
    lines.append(_line("SFT loss", result["held_out_loss"]))
    for name, values in result["held_out_pairs"].items():
        lines.append(_line(f"margin, {name}", values["margin"]))
        lines.append(_line(f"accuracy, {name}", values["accuracy"]))
    both = result["held_out_pairs_with_reasoning"]
    other = result["of_these_with_other_reasoning"]
    lines.append(
        f"  ({other} of {both} pairs with reasoning differ in it; in the rest its "
        "margin is 0 up to rounding, and its accuracy says nothing)"
    )
    lines += ["", f"Of {result['prompts']} answers           base    sft  final"]
    for key in ("think_opened", "think_closed"):
        counts = "".join(f"{result[key][n]:>7}" for n in ("base", "sft", "final"))
        lines.append(f"  {key.replace('_', ' '):<15} {counts}")
    lines += ["", *_costs(result), "", *_quotes(result)]
    return "\n".join(lines)


def _line(name: str, change: dict[str, float]) -> str:
    return f"  {name:<26} {change['before']:>9.4f} {change['after']:>9.4f}"


def _costs(result: dict[str, Any]) -> Iterator[str]:
    yield f"Seconds ({result['attempts']} attempt(s), {result['threads']} threads)"
    for name, value in result["seconds"].items():
        yield f"  {name:<26} {value:>9.1f}"
    yield f"  {'total':<26} {result['total_seconds']:>9.1f}"
    yield f"Peak memory of the run       {result['peak_mib']:>9.0f} MiB"


def _quotes(result: dict[str, Any]) -> Iterator[str]:
    for quote in result["quotes"]:
        yield f"Held-out {quote['kind']} prompt: {quote['prompt']}"
        for name in ("base", "sft", "final"):
            yield f"--- {name}:\n{quote[name]}"
        yield ""
