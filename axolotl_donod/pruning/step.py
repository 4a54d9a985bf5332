"""DON and NOD of n rows: takes stored scalars and settings, gives arrays and a step.

It knows nothing of models, files or of how scores are fused.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.donod_parts import ProbeConfig
from axolotl_donod.pruning.donod import (
    FloatArray,
    crossover_learning_rate,
    don,
    nod,
    reduce_sum,
)
from axolotl_donod.pruning.scores import STEP_COLUMNS, Columns

BEYOND_CROSSOVER = 10.0
# Rows whose temporaries exist at a time; of ten million rows they would fill 400 MB.
_CHUNK_ROWS = 2**17


@dataclass(frozen=True)
class Step:
    """What one step of the probe does on each of n rows.

    Attributes:
        don: (n,) delta of norm; NaN on rows without finite scalars.
        nod: (n,) norm of delta, likewise.
        learning_rate: Step size; NaN if there is none, and then all of don and nod.
        crossover_median: Median crossover step size of the rows, NaN if none has one.
        crossover_q95: Step size that is beyond the crossover of 95 % of the rows.
    """

    don: FloatArray
    nod: FloatArray
    learning_rate: float
    crossover_median: float
    crossover_q95: float


def step_columns(probe: ProbeConfig) -> tuple[str, str]:
    """Name the columns that hold <W,D> and ||D||^2 of the probe's step D.

    D is the gradient of the mean loss, or what a probe without a closed form measured
    under its own reduction.
    """
    return ("w_dot_g", "g_norm_sq") if probe.closed_form else STEP_COLUMNS


def step_of(
    columns: Columns,
    config: DonodConfig,
    head_norm: float,
    training_learning_rate: float,
) -> Step:
    """Compute DON and NOD (arXiv 2504.14810) at the step size of a configuration.

    A set `probe.learning_rate` is used as it is. Otherwise preset `paper` probes with
    the training learning rate, and the others with ten times the smallest crossover
    2 |<W,D>| / ||D||^2 that at least 95 % of the rows with finite scalars do not
    exceed: for those rows the part of DON that is linear in the learning rate and
    rewards surprise is then at most a tenth of the quadratic part, so that a small DON
    means an unstable row, not an easy one. Several steps are measured at one step
    size, which no quantile of their own result can give.

    Args:
        columns: Scores of n rows, those of `step_columns` among them.
        config: The section `donod`.
        head_norm: Frobenius norm of the output head.
        training_learning_rate: Learning rate of the training that follows.

    Returns:
        The step; its learning rate is NaN where `paper` has none above zero, or where
        the rows have no crossover.
    """
    n_rows = columns["n_tokens"].size
    median, q95 = _crossover_quantiles(_crossovers(columns, config.probe))
    rate = config.probe.learning_rate
    if rate is None:
        beyond = BEYOND_CROSSOVER * q95 if config.probe.steps == 1 else np.nan
        rate = training_learning_rate if config.preset == "paper" else beyond
    dons, nods = np.full(n_rows, np.nan), np.full(n_rows, np.nan)
    if not rate > 0:
        return Step(dons, nods, float("nan"), median, q95)
    # L2 decay is part of the measured steps of SGD; that of Adam is decoupled.
    measured = config.probe.optimizer == "sgd" and not config.probe.closed_form
    decay = 0.0 if measured else config.probe.weight_decay
    for part, inner, squared in _scalars(columns, config.probe):
        dons[part] = don(inner, squared, head_norm, rate, decay)
        nods[part] = nod(inner, squared, head_norm, rate, decay)
    return Step(dons, nods, float(rate), median, q95)


def _scalars(
    columns: Columns, probe: ProbeConfig
) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    """<W,D> and ||D||^2 under the probe's reduction, in chunks of rows."""
    inners, squares = (columns[name] for name in step_columns(probe))
    for start in range(0, inners.size, _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        inner, squared = inners[part], squares[part]
        if probe.closed_form and probe.reduction == "sum":
            inner, squared = reduce_sum(inner, squared, columns["n_tokens"][part])
        yield part, inner, squared


def _crossovers(columns: Columns, probe: ProbeConfig) -> FloatArray:
    """The finite crossover step sizes, in no order that matters."""
    found = [
        crossover[np.isfinite(crossover)]
        for _, inner, squared in _scalars(columns, probe)
        for crossover in [crossover_learning_rate(inner, squared)]
    ]
    return np.concatenate([np.empty(0), *found])


def _crossover_quantiles(crossovers: FloatArray) -> tuple[float, float]:
    if not crossovers.size:
        return float("nan"), float("nan")
    median = np.median(crossovers, overwrite_input=True)
    # "higher" is an element of the data, so the 95 % hold for any number of rows.
    q95 = np.quantile(crossovers, 0.95, method="higher", overwrite_input=True)
    return float(median), float(q95)
