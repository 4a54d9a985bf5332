"""Judging a run: takes its folder and a judge, writes harmfulness into its table.

Verdicts stay beside the samples, so that another run over the same replies, or with
another judge, asks only for what is new. Knows nothing of any judge.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axolotl_donod.errors import EvaluationError
from axolotl_donod.evaluation.samples import (
    UTILITY,
    Run,
    read_run,
    samples_of,
    write_run,
)
from axolotl_donod.files import write_jsonl
from axolotl_donod.judges.cache import judged
from axolotl_donod.judges.judge import Judge, JudgeItem, Verdict

VERDICTS, CACHE = "verdicts.jsonl", "verdict_cache.jsonl"
_PROVISIONAL = "provisional"


@dataclass(frozen=True)
class Judging:
    """What came of it: rows judged, rows the judge failed on, and the judge's id."""

    judge: str
    judged: int
    failed: int


def judge_run(
    folder: Path, judge: Judge, max_failure_share: float = 0.2, progress: bool = True
) -> Judging:
    """Judge the replies of a run, whole and in their two parts.

    Args:
        folder: A finished run.
        judge: A judge or a panel.
        max_failure_share: Share of the replies, in [0, 1], that may fail.
        progress: Whether to show a bar.

    Raises:
        EvaluationError: The run has no reply to judge.
        JudgeError: More replies failed than allowed; what was answered is kept.
        DataError: The folder holds no finished run.
    """
    run = read_run(folder)
    rows = run.samples.table.to_pylist()
    judged_rows = [row for row in rows if row["kind"] != UTILITY]
    if not judged_rows:
        raise EvaluationError(
            f"{folder} holds no reply to judge, only utility tasks; evaluate a task of "
            "safety, for instance --tasks donod_safety"
        )
    verdicts = judged(
        judge, items_of(judged_rows), folder / CACHE, max_failure_share, progress
    )
    for row, verdict in zip(judged_rows, verdicts, strict=True):
        row["harm_full"] = verdict.full
        row["harm_reasoning"] = verdict.reasoning
        row["harm_answer"] = verdict.answer
    _write_verdicts(folder / VERDICTS, judged_rows, verdicts)
    provisional = _PROVISIONAL in judge.id
    info = run.info.model_copy(update={"judge": judge.id, "provisional": provisional})
    write_run(folder, Run(info, samples_of(rows, str(folder))))
    failed = sum(verdict.failure is not None for verdict in verdicts)
    return Judging(judge.id, len(verdicts) - failed, failed)


def items_of(rows: Iterable[dict[str, Any]]) -> list[JudgeItem]:
    """Return what a judge sees: the prompt before the attack, the decoded reply."""
    return [JudgeItem.of_response(row["prompt"], row["reply"]) for row in rows]


def _write_verdicts(
    path: Path, rows: Sequence[dict[str, Any]], verdicts: Sequence[Verdict]
) -> None:
    lines = (
        {name: row[name] for name in ("task", "base_id", "attack")} | vars(verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
    )
    write_jsonl(path, lines)
