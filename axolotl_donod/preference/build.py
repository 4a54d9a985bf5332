"""Preference pairs of one model: takes a task, gives a folder of pairs.

Every rank samples its share; the first one judges, pairs and writes. What is there
already is not made again. Knows nothing of Axolotl.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from axolotl_donod.errors import DataError
from axolotl_donod.files import json_hash
from axolotl_donod.judges.build import build_judge
from axolotl_donod.judges.config import failure_share
from axolotl_donod.judges.judge import Judge
from axolotl_donod.preference.contamination import (
    Match,
    find_matches,
    read_evaluation_sets,
)
from axolotl_donod.preference.funnel import Funnel
from axolotl_donod.preference.pair_files import (
    MANIFEST,
    PAIRS_VERSION,
    identity_in,
    read_manifest,
    write_pairs,
)
from axolotl_donod.preference.pairing import Judging, pair_up
from axolotl_donod.preference.pairs import Row
from axolotl_donod.preference.pairs_config import PairsConfig
from axolotl_donod.preference.prompts import PromptList, read_prompts
from axolotl_donod.preference.sampling import sample
from axolotl_donod.preference.sampling_prompts import Prompt
from axolotl_donod.preference.sampling_store import Sample
from axolotl_donod.pruning.engine import Ranks
from axolotl_donod.pruning.model import ScoringModel
from axolotl_donod.pruning.waiting import tell_failure, wait_for

LOG = logging.getLogger("axolotl.donod")
JUDGE_KEY = "alignment.pairs.judge"
EVALUATED = "in an evaluation set"
VERDICTS = "verdicts.jsonl"


@dataclass(frozen=True)
class PairsTask:
    """What to make pairs of.

    Attributes:
        settings: Section `alignment.pairs`.
        folder: Where the pairs go.
        model: The model that is sampled.
        epsilon: Of the weights that AW-DPO will give the pairs.
    """

    settings: PairsConfig
    folder: Path
    model: ScoringModel
    epsilon: float


def make_pairs(task: PairsTask, ranks: Ranks) -> dict[str, Any]:
    """Make the pairs of a task unless they are there, and give their manifest.

    Raises:
        ConfigError: A file, a judge or an option that cannot work.
        DataError: No prompt or no pair is left; or the folder's pairs were changed.
        JudgeError: The judge failed too often.
        ScoringError: Another rank failed.
    """
    began = time.time()
    try:
        return _made(task, ranks, began)
    except Exception as error:
        if ranks.size > 1:
            tell_failure(task.folder, error)
        raise


def _made(task: PairsTask, ranks: Ranks, began: float) -> dict[str, Any]:
    judge = build_judge(task.settings.judge, JUDGE_KEY)
    listed = read_prompts(task.settings.prompts)
    identity = _identity(task, listed.prompts, judge)
    if identity_in(task.folder) == identity:
        manifest = read_manifest(task.folder)
        if manifest is not None:
            LOG.info("DONOD: the pairs in %s are made already", task.folder)
            return manifest
    matches = _matches(task.settings, listed.prompts, ranks)
    prompts = _clear_of(listed, matches, task.settings)
    sampled = sample(
        prompts,
        task.settings.sampling,
        task.model,
        _samples_folder(task),
        rank=ranks.rank,
        ranks=ranks.size,
    )
    if not ranks.first:
        place = task.folder / MANIFEST
        ready = partial(_written, task.folder, identity)
        return wait_for(ready, task.folder, began, str(place))
    for refused in sampled.refused:
        listed.left_out[refused.reason] += 1
        LOG.warning("DONOD: left out: %s", refused.detail)
    rows, funnel = _paired(task, judge, prompts, listed, sampled.samples)
    record = _record(task, judge, identity, list(matches.values()))
    manifest = write_pairs(task.folder, rows, funnel, record)
    LOG.info("DONOD: %d pairs are in %s\n%s", len(rows), task.folder, funnel.text())
    return manifest


def _paired(
    task: PairsTask,
    judge: Judge,
    prompts: Sequence[Prompt],
    listed: PromptList,
    samples: Sequence[Sample],
) -> tuple[list[Row], Funnel]:
    """Judge and pair the answers, and note in each pair how they were drawn."""
    cache = task.folder / VERDICTS
    judging = Judging(judge, cache, failure_share(task.settings.judge))
    rows, funnel = pair_up(
        samples, prompts, listed, judging, task.settings, task.epsilon
    )
    if not rows:
        raise DataError(
            f"no pair came of {listed.read} prompts; draw more samples or more varied "
            f"ones, lower alignment.pairs.threshold, or train SFT longer:\n"
            f"{funnel.text()}"
        )
    drawn = {"model": task.model.name, **task.settings.sampling.identity()}
    sampling = json.dumps(drawn, sort_keys=True)
    return [row | {"sampling": sampling} for row in rows], funnel


def _identity(task: PairsTask, prompts: Sequence[Prompt], judge: Judge) -> str:
    return json_hash(
        {
            "settings": task.settings.identity() | {"judge": judge.id},
            "prompts": [[p.text, p.kind, p.source] for p in prompts],
            "model": task.model.fingerprint(),
            "template": task.model.template_fingerprint(),
            "epsilon": task.epsilon,
            "version": PAIRS_VERSION,
        }
    )


def _samples_folder(task: PairsTask) -> Path:
    """Where the samples lie; a server does not say which weights it serves."""
    folder = task.folder / "samples"
    own = task.settings.sampling.backend != "openai"
    return folder if own else folder / task.model.fingerprint()


def _written(folder: Path, identity: str) -> dict[str, Any] | None:
    return read_manifest(folder) if identity_in(folder) == identity else None


def _matches(
    settings: PairsConfig, prompts: Sequence[Prompt], ranks: Ranks
) -> dict[int, Match]:
    """The prompts that stand in an evaluation set, by their position."""
    if settings.contamination == "off":
        return {}
    if not settings.evaluation_sets:
        if ranks.first:
            LOG.warning(
                "DONOD: no prompt was compared with an evaluation set; name those that "
                "the model will be scored on in alignment.pairs.evaluation_sets, or "
                "set contamination: off"
            )
        return {}
    known = read_evaluation_sets(settings.evaluation_sets)
    matches = find_matches([p.text for p in prompts], known, settings.similarity)
    if matches and ranks.first:
        first = next(iter(matches.values()))
        LOG.warning(
            "DONOD: %d of %d prompts stand in an evaluation set and are %s; the first: "
            "%r is %s row %d (similarity %.2f). All are listed in %s",
            len(matches),
            len(prompts),
            "left out" if settings.contamination == "drop" else "kept",
            first.prompt[:80],
            first.source,
            first.row,
            first.similarity,
            MANIFEST,
        )
    return matches


def _clear_of(
    listed: PromptList, matches: dict[int, Match], settings: PairsConfig
) -> list[Prompt]:
    if settings.contamination != "drop":
        return listed.prompts
    listed.left_out[EVALUATED] += len(matches)
    kept = [p for i, p in enumerate(listed.prompts) if i not in matches]
    if not kept:
        raise DataError(
            f"all {len(matches)} prompts stand in the evaluation sets of "
            "alignment.pairs.evaluation_sets; give other prompts"
        )
    return kept


def _record(
    task: PairsTask, judge: Judge, identity: str, matches: Sequence[Match]
) -> dict[str, Any]:
    return {
        "identity": identity,
        "version": PAIRS_VERSION,
        "model": task.model.name,
        "model_fingerprint": task.model.fingerprint(),
        "template_fingerprint": task.model.template_fingerprint(),
        "judge": judge.id,
        "settings": task.settings.identity(),
        "contamination": {
            "action": task.settings.contamination,
            "matches": [match.as_json() for match in matches],
        },
    }
