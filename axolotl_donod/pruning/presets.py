"""Every preset on one set of scores: takes rows and clones, gives their closeness.

It knows nothing of models, files or of what the figures are compared for.
"""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import ConfigError, ScoringError
from axolotl_donod.pruning.calibration import leave_one_kind_out, out_of_fold
from axolotl_donod.pruning.donod import FloatArray
from axolotl_donod.pruning.ranking import rank_scores
from axolotl_donod.pruning.scores import Columns

LOG = logging.getLogger("axolotl.donod")
KIND_LEFT_OUT = "calibrated, kind left out"
_FUSED = ("paper", "auto", "panel")


def closeness_of_presets(
    rows: Columns,
    clones: Columns,
    kinds: NDArray[Any],
    parents: NDArray[np.int64],
    config: DonodConfig,
    head_norm: float,
    training_learning_rate: float,
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Rank rows and clones together under every preset.

    `paper`, `auto` and `panel` rank the clones as if they had been in the data.
    `calibrated` is out of fold, and "calibrated, kind left out" judges the clones of
    each kind by a regression that knows no such clone.

    Args:
        rows: Scores of n rows.
        clones: Scores of m clones.
        kinds: (m,) how each clone was corrupted.
        parents: (m,) index of the row that each was made of.
        config: The section `donod`; its preset does not matter.
        head_norm: Frobenius norm of the output head.
        training_learning_rate: Learning rate of the training that follows.

    Returns:
        Name of the preset to (n,) and (m,) closeness; NaN where a row has none. What
        these scores cannot give is left out.
    """
    found = {}
    both = _joined(rows, clones)
    n_rows = rows["n_tokens"].size
    for preset in _FUSED:
        chosen = config.model_copy(update={"preset": preset})
        try:
            ranking = rank_scores(both, chosen, head_norm, training_learning_rate)
        except (ConfigError, ScoringError) as error:
            LOG.debug("DONOD: preset %s is not audited: %s", preset, error)
            continue
        found[preset] = ranking.closeness[:n_rows], ranking.closeness[n_rows:]
    try:
        found["calibrated"] = out_of_fold(rows, clones, kinds, parents)
        left_out = leave_one_kind_out(
            rows, clones, kinds, parents, found["calibrated"][0]
        )
        # Clones without a closeness rank last, which would look like success.
        if np.isfinite(left_out[1][np.isfinite(found["calibrated"][1])]).all():
            found[KIND_LEFT_OUT] = left_out
    except ConfigError as error:
        LOG.debug("DONOD: preset calibrated is not audited: %s", error)
    return found


def _joined(rows: Columns, clones: Columns) -> Columns:
    return {
        name: np.concatenate([rows[name], clones[name]])
        for name in rows
        if name in clones
    }
