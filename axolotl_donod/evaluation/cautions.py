"""What a reader of a comparison must know first: takes its tables, gives sentences.

Knows nothing of pages.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from axolotl_donod.evaluation.columns import OVERALL
from axolotl_donod.evaluation.pairing import Overlap
from axolotl_donod.evaluation.tables import TRUNCATED, UNCLOSED, UNJUDGED, ModelTable

# Share of harmful prompts from which on a condition of their replies is told.
_MANY = 0.05
# On average answers take up 44 % of their prompts or more, those of other prompts 13 %
# or less. Only these families can be hard to read, and few replies tell nothing of it.
_UNREAD = 0.25
_CODED = ("encoding", "translation")
_FEW = 10


def cautions(models: Sequence[ModelTable], overlaps: Sequence[Overlap]) -> list[str]:
    """Tell of provisional judges, unlike runs, and replies that cannot be trusted."""
    return [
        *_judges(models),
        *_unlike(models),
        *_rows(overlaps),
        *(text for model in models for text in _replies(model)),
        *(text for model in models for text in _unclosed(model)),
        *(text for model in models for text in _unread(model)),
    ]


def _judges(models: Sequence[ModelTable]) -> Iterator[str]:
    judged = [model for model in models if model.asr["full"]]
    rough = [model.name for model in judged if model.info.provisional]
    if any(model.outcomes for model in models) and (rough or not judged):
        names = ", ".join(rough or [model.name for model in models])
        yield (
            f"Harmfulness of {names} is provisional: rules that look for refusals gave "
            "it, which take every other reply for harmful. Run `axolotl donod judge` "
            "before you quote an attack success rate."
        )
    if len(judges := {model.info.judge for model in judged}) > 1:
        told = ", ".join(repr(name) for name in sorted(judges))
        yield f"Different judges gave the harmfulness: {told}; their rates differ too."


def _unlike(models: Sequence[ModelTable]) -> Iterator[str]:
    for what in ("decoding", "seeds", "tasks", "attacks"):
        held: list[dict[str, Any]] = [getattr(m.info, what) for m in models]
        keys = sorted({key for one in held for key in one})
        missing = object()
        unlike = [
            k
            for k in keys
            if any(one.get(k, missing) != held[0].get(k, missing) for one in held)
        ]
        if unlike:
            yield (
                f"The runs differ in {what}: {', '.join(unlike)}. Differences between "
                "the models may come from that."
            )


def _rows(overlaps: Sequence[Overlap]) -> Iterator[str]:
    for one in overlaps:
        if alone := one.only_baseline + one.only_model:
            yield (
                f"{one.model} and {one.baseline} ran on different rows: {one.common:,} "
                f"are common and {alone:,} are not. Differences rest on the common "
                "rows, every other number on all rows of its run."
            )
        if one.prompts_differ:
            yield (
                f"{one.model} and {one.baseline} read different texts in "
                f"{one.prompts_differ:,} of {one.common:,} common rows: their chat "
                "templates or system prompts differ."
            )


def _replies(model: ModelTable) -> Iterator[str]:
    counts = model.outcomes.get(OVERALL, {})
    rows = model.rows.get("harmful", 0)
    told = {
        UNJUDGED: "have no judgement and are left out of attack success rates",
        TRUNCATED: "ran into the limit of tokens; judge what was cut off with care",
        UNCLOSED: "never close their reasoning, so they have no answer",
        "garbled": "are garbled, which no attack success rate shows",
        "empty": "are empty, which no attack success rate shows",
    }
    for name, meaning in told.items():
        if (count := counts.get(name, 0)) > _MANY * rows:
            yield (
                f"{count:,} of {rows:,} replies of {model.name} to harmful prompts "
                f"{meaning}."
            )


def _unclosed(model: ModelTable) -> Iterator[str]:
    for task, row in {row.task: row for row in model.utility}.items():
        if row.unclosed > _MANY * row.estimate.rows:
            yield (
                f"{row.unclosed:,} of {row.estimate.rows:,} replies of {model.name} to "
                f"{task} never close their reasoning, so they have no answer."
            )


def _unread(model: ModelTable) -> Iterator[str]:
    names = [
        row.attack
        for row in model.attacks
        if row.family in _CODED
        and row.answered >= _FEW
        and row.comprehension is not None
        and row.comprehension < _UNREAD
    ]
    if names:
        yield (
            f"{model.name} hardly takes up the prompts of {', '.join(names)} "
            f"(comprehension below {100 * _UNREAD:.0f} % in replies that are not "
            "refusals): unless it replies in another language, which comprehension "
            "cannot follow, it may not read them, and whether these attacks fail says "
            "little about its safety."
        )
