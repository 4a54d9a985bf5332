"""Values of one score: takes a score and scored rows, gives checked numbers.

It knows nothing of models, batches or files.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

from axolotl_donod.errors import ScoringError
from axolotl_donod.pruning.scores import Score, ScoredRow
from axolotl_donod.pruning.scoring.memory import is_out_of_memory


def score_values(
    score: Score, rows: Sequence[ScoredRow], indices: Sequence[int]
) -> list[float]:
    """Compute a score that a plugin may have given, and check what comes back.

    Args:
        score: The score.
        rows: n rows.
        indices: Their n numbers, for errors.

    Raises:
        ScoringError: It raises, or does not give n finite or NaN floats; names score
            and row.
    """
    if not rows:
        return []
    values = _computed(score, rows, indices)
    if len(values) != len(rows):
        raise ScoringError(
            f"score {score.name!r} must give a float for each of {_named(indices)}, "
            f"got {len(values)} values; mend the plugin that brings it"
        )
    for index, value in zip(indices, values, strict=True):
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number or math.isinf(value):
            raise ScoringError(
                f"score {score.name!r} must give a finite float or NaN for row "
                f"{index}, got {value!r}; mend the plugin that brings it"
            )
    return [float(value) for value in values]


def _computed(
    score: Score, rows: Sequence[ScoredRow], indices: Sequence[int]
) -> list[Any]:
    try:
        return list(score.compute(rows))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if len(rows) > 1:
            # Finds the row to blame, unless only their company is.
            for row, index in zip(rows, indices, strict=True):
                _computed(score, [row], [index])
        raise ScoringError(
            f"score {score.name!r} fails on {_named(indices)}: {error!r}; mend or "
            "uninstall the plugin that brings it"
        ) from error


def _named(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"row {indices[0]}"
    return f"rows {', '.join(map(str, indices))}"
