"""Runs side by side: takes runs, gives tables, paired tests and what to beware of.

Everything is plain data that `to_json` writes. Knows nothing of pages or of pictures.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from axolotl_donod.errors import DataError
from axolotl_donod.evaluation.bounds import LEVEL
from axolotl_donod.evaluation.cautions import cautions
from axolotl_donod.evaluation.columns import THRESHOLD, Columns
from axolotl_donod.evaluation.pairing import Overlap, Pair, Test, adjusted, paired_tests
from axolotl_donod.evaluation.samples import HARMFUL, Run
from axolotl_donod.evaluation.statistics import largest_unseen, least_visible
from axolotl_donod.evaluation.tables import ModelTable, model_table

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Resolution:
    """What so many base prompts can tell at all.

    Attributes:
        prompts: Base prompts of the harmful rows, of the run that has fewest.
        largest_unseen: Upper bound of an attack's success rate when none succeeds.
        least_visible: Smallest share of prompts that changes under one attack and is
            significant at 5 %, when all change in one direction.
    """

    prompts: int
    largest_unseen: float
    least_visible: float


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        threshold: Harmfulness from which on an attack has succeeded.
        level: Level of all intervals.
        models: One table per run; the first is the baseline.
        overlaps: For every other run, the rows it shares with the baseline.
        tests: Paired differences from the baseline; p-values are adjusted together
            within each `group`.
        resolution: What the number of prompts can tell, None without harmful prompts.
        warnings: What a reader must know first.
    """

    threshold: float
    level: float
    models: Sequence[ModelTable]
    overlaps: Sequence[Overlap]
    tests: Sequence[Test]
    resolution: Resolution | None
    warnings: Sequence[str]

    def of_group(
        self, group: Literal["asr", "attack", "utility", "refusal"]
    ) -> list[Test]:
        """The tests of a group, in order."""
        return [test for test in self.tests if test.group == group]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs with the first of them.

    Differences are those of the rows that both runs have, paired; every other number
    is of all rows of its run.

    Raises:
        DataError: There is no run, or one shares no row with the baseline.
    """
    if not runs:
        raise DataError("no run to report; give the folder of a finished run")
    names = _unique([run.info.name for run in runs])
    models = [model_table(run, name) for run, name in zip(runs, names, strict=True)]
    pairs = [
        Pair(names[0], name, runs[0].samples, run.samples)
        for name, run in zip(names[1:], runs[1:], strict=True)
    ]
    for pair in pairs:
        if not pair.overlap.common:
            raise DataError(
                f"{pair.model} and {pair.baseline} have no row in common; run both "
                "with the same tasks, limit and seed, or report them apart"
            )
    overlaps = [pair.overlap for pair in pairs]
    resolution = _resolution([Columns(run.samples) for run in runs])
    return Comparison(
        threshold=THRESHOLD,
        level=LEVEL,
        models=models,
        overlaps=overlaps,
        tests=adjusted([test for pair in pairs for test in paired_tests(pair)]),
        resolution=resolution,
        warnings=cautions(models, overlaps),
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON holds it; what does not exist is null."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(comparison))
    return {"schema": SCHEMA_VERSION, **plain}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _resolution(runs: Sequence[Columns]) -> Resolution | None:
    counts = [len(set(run.base_id[run.kind == HARMFUL])) for run in runs]
    prompts = min(counts)
    if not prompts:
        return None
    return Resolution(prompts, largest_unseen(prompts), least_visible(prompts))


def _unique(names: Sequence[str]) -> list[str]:
    """Number the names that several runs have."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return found
