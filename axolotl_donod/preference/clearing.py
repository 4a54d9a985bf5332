"""Prompts clear of evaluation sets: takes all prompts, gives those to sample.

Tells what is left out, and with what nothing was compared; knows nothing of models.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from axolotl_donod.errors import DataError
from axolotl_donod.files import write_json
from axolotl_donod.preference.contamination import (
    EvaluationPrompts,
    Match,
    find_matches,
    read_evaluation_sets,
)
from axolotl_donod.preference.pair_files import MANIFEST
from axolotl_donod.preference.pairs_config import PairsConfig
from axolotl_donod.preference.prompts import PromptList
from axolotl_donod.preference.sampling_prompts import Prompt

LOG = logging.getLogger("axolotl.donod")
EVALUATED = "in an evaluation set"
CLEARING = "clearing.json"


@dataclass(frozen=True)
class Clearing:
    """Which prompts stand in an evaluation set, as far as sets could be had.

    Attributes:
        matches: What a prompt matches, by its position.
        compared_with: Number of prompts compared with, by set.
        not_compared_with: Why other sets are unknown, by set.
    """

    matches: dict[int, Match]
    compared_with: dict[str, int]
    not_compared_with: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return it as the manifest keeps it."""
        matches = [match.as_json() for match in self.matches.values()]
        return asdict(self) | {"matches": matches}


def write_clearing(folder: Path, identity: str, clearing: Clearing) -> None:
    """Keep it, so that all ranks and a run that goes on leave out the same prompts."""
    matches = [[i, asdict(match)] for i, match in clearing.matches.items()]
    kept = asdict(clearing) | {"matches": matches, "identity": identity}
    write_json(folder / CLEARING, kept)


def read_clearing(folder: Path, identity: str) -> Clearing | None:
    """Return what was kept for an identity of pairs, None where nothing was."""
    try:
        kept = json.loads((folder / CLEARING).read_text("utf-8"))
        if kept.pop("identity") != identity:
            return None
        return Clearing(
            **kept | {"matches": {i: Match(**m) for i, m in kept["matches"]}}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def known_prompts(
    settings: PairsConfig, held_out: Callable[[], EvaluationPrompts], *, tell: bool
) -> EvaluationPrompts:
    """Read the prompts to keep clear of.

    Args:
        settings: Section `alignment.pairs`.
        held_out: Gives them where the settings name no sets.
        tell: Whether to say what cannot be compared with.

    Raises:
        ConfigError: A set that the settings name is missing.
        DataError: It cannot be read.
    """
    if settings.contamination == "off":
        return EvaluationPrompts()
    if settings.evaluation_sets is not None:
        return EvaluationPrompts(read_evaluation_sets(settings.evaluation_sets))
    known = held_out()
    missing = "; ".join(f"{name} ({why})" for name, why in known.missing.items())
    if tell and (missing or not known.prompts):
        LOG.warning(
            "DONOD: prompts are not compared with %s. Put these sets under "
            "evaluation.data.local_data, name those that the model will be scored on "
            "in alignment.pairs.evaluation_sets, or set contamination: off",
            missing or "any evaluation set",
        )
    return known


def matches_of(
    settings: PairsConfig,
    prompts: Sequence[Prompt],
    known: EvaluationPrompts,
) -> dict[int, Match]:
    """Find the prompts that stand in an evaluation set, by their position."""
    if not known.prompts:
        return {}
    texts = [prompt.text for prompt in prompts]
    matches = find_matches(texts, known.prompts, settings.similarity)
    if matches:
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


def clear_of(
    listed: PromptList, matches: dict[int, Match], settings: PairsConfig
) -> list[Prompt]:
    """Leave out the prompts that match, and count them, unless they are only reported.

    Raises:
        DataError: None is left.
    """
    if settings.contamination != "drop":
        return listed.prompts
    listed.left_out[EVALUATED] += len(matches)
    kept = [p for i, p in enumerate(listed.prompts) if i not in matches]
    if not kept:
        raise DataError(
            f"all {len(matches)} prompts stand in evaluation sets, the first in "
            f"{matches[0].source} row {matches[0].row}; give other prompts, or set "
            "alignment.pairs.contamination: report"
        )
    return kept
