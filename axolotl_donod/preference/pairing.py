"""Answers to prompts in, preference pairs and their funnel out.

Asks a judge, through its cache; knows nothing of models or of other files.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from axolotl_donod.files import json_hash
from axolotl_donod.judges.cache import judged
from axolotl_donod.judges.judge import Judge
from axolotl_donod.preference.funnel import Funnel, Step, implied_weights, kinds_of
from axolotl_donod.preference.pairs import (
    UNJUDGED,
    Candidate,
    Row,
    candidate,
    distinct,
    item_of,
    pair_row,
    pairs_of,
    widest_gap,
)
from axolotl_donod.preference.pairs_config import PairsConfig
from axolotl_donod.preference.prompts import PromptList
from axolotl_donod.preference.sampling_prompts import Prompt
from axolotl_donod.preference.sampling_store import Sample

_REPEATED_PAIR, _OVER_CAP = "the same pair again", "over max_pairs_per_prompt"


@dataclass(frozen=True)
class Judging:
    """A judge, the file of its verdicts, and the share of answers it may fail for."""

    judge: Judge
    cache: Path
    max_failure_share: float


@dataclass
class _Tally:
    """What is counted on the way from answers to pairs."""

    answers: Counter[str] = field(default_factory=Counter)
    prompts: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    gaps: list[float] = field(default_factory=list)
    usable: int = 0
    paired: int = 0


def pair_up(
    samples: Sequence[Sample],
    prompts: Sequence[Prompt],
    listed: PromptList,
    judging: Judging,
    settings: PairsConfig,
    epsilon: float,
) -> tuple[list[Row], Funnel]:
    """Judge the usable answers and pair them, prompt by prompt in their order.

    Args:
        samples: Answers, in any order.
        prompts: The prompts that were sampled for.
        listed: How many prompts were read, and why others were left out.
        judging: Who judges.
        settings: Section `alignment.pairs`.
        epsilon: Of the weights that AW-DPO will give the pairs.

    Raises:
        JudgeError: The judge failed too often.
    """
    tally = _Tally()
    by_prompt: dict[str, list[Sample]] = defaultdict(list)
    for one in sorted(samples, key=lambda one: one.index):
        by_prompt[one.prompt].append(one)
    asked = [prompt for prompt in prompts if prompt.id in by_prompt]
    for prompt in asked:
        by_prompt[prompt.id], left_out = distinct(by_prompt[prompt.id])
        tally.answers += left_out
    items = [item_of(p, one) for p in asked for one in by_prompt[p.id]]
    found = judged(judging.judge, items, judging.cache, judging.max_failure_share)
    verdicts = iter(found)
    rows: list[Row] = []
    for prompt in asked:
        ranked = [candidate(prompt, s, next(verdicts)) for s in by_prompt[prompt.id]]
        fit = [one for one in ranked if one is not None]
        tally.answers[UNJUDGED] += len(ranked) - len(fit)
        rows += _rows_of(prompt, fit, settings, tally)
    rows = _distinct_rows(rows, tally)
    steps = _steps(listed, len(asked), len(samples), len(rows), tally)
    weights = implied_weights(rows, epsilon)
    return rows, Funnel(steps, tally.gaps, weights, kinds_of(rows), settings.threshold)


def _steps(
    listed: PromptList, n_asked: int, n_samples: int, n_pairs: int, tally: _Tally
) -> list[Step]:
    return [
        Step("prompts read", listed.read, {}),
        Step("prompts sampled", n_asked, listed.left_out),
        Step("answers sampled", n_samples, {}),
        Step("answers usable", tally.usable, tally.answers),
        Step("prompts with a pair", tally.paired, tally.prompts),
        Step("pairs", n_pairs, tally.pairs),
    ]


def _rows_of(
    prompt: Prompt, fit: Sequence[Candidate], settings: PairsConfig, tally: _Tally
) -> list[Row]:
    tally.usable += len(fit)
    gap = widest_gap(fit)
    if gap is not None:
        tally.gaps.append(gap)
    pairs, reason, more = pairs_of(fit, settings)
    if reason is not None:
        tally.prompts[reason] += 1
    tally.paired += bool(pairs)
    tally.pairs[_OVER_CAP] += more
    system = settings.sampling.system
    return [pair_row(prompt, *pair, system) for pair in pairs]


def _distinct_rows(rows: Sequence[Row], tally: _Tally) -> list[Row]:
    found: dict[str, Row] = {}
    for row in rows:
        key = json_hash({name: row[name] for name in ("prompt", "chosen", "rejected")})
        if key in found:
            tally.pairs[_REPEATED_PAIR] += 1
        found.setdefault(key, row)
    return list(found.values())
