"""Fuses score columns into one ranking: takes arrays, gives arrays.

It knows nothing of models, files or how many rows will be kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import ConfigError, ScoringError
from axolotl_donod.pruning.calibration import Calibration
from axolotl_donod.pruning.donod import FloatArray
from axolotl_donod.pruning.scores import Columns, Goal
from axolotl_donod.pruning.step import Step, step_columns, step_of
from axolotl_donod.pruning.topsis import topsis

Criteria = Mapping[str, tuple[Goal, float]]
# Of fifteen sets of scores the smallest that kept less planted rubbish than loss alone
# in each of four measurements: `python -m tests.benchmarks.selection_quality
# --criteria ce,ce_std`.
DEFAULT_CRITERIA: Criteria = MappingProxyType(
    {"ce": ("min", 1.0), "ce_std": ("min", 1.0)}
)


@dataclass(frozen=True)
class Ranking:
    """Scores and ranks of n rows, in input order.

    Attributes:
        n_tokens: (n,) trained tokens.
        don: (n,) delta of norm; NaN on rows without finite scalars, as is the next,
            and everywhere if the preset needs neither and there is no step size.
        nod: (n,) norm of delta.
        closeness: (n,) TOPSIS closeness in [0, 1], or the probability of not being
            corrupted with preset `calibrated`; 1 is best, NaN where a score is.
        rank: (n,) 1 is best; rows without a closeness come last.
        learning_rate: Step size of the probe behind don and nod, NaN if none.
        crossover_median: Median crossover step size of the rows, NaN if none has one.
        crossover_q95: Step size that is beyond the crossover of 95 % of the rows.
        preset: The preset that ranked.
        criteria: Scores it used, each with its goal and weight; with `calibrated` the
            size of the regression's slope at the median.
    """

    n_tokens: NDArray[np.int64]
    don: FloatArray
    nod: FloatArray
    closeness: FloatArray
    rank: NDArray[np.int64]
    learning_rate: float
    crossover_median: float
    crossover_q95: float
    preset: str = "auto"
    criteria: Criteria = field(default_factory=dict)


def rank_scores(
    columns: Columns,
    config: DonodConfig,
    head_norm: float,
    training_learning_rate: float,
    *,
    goals: Mapping[str, Goal] | None = None,
    calibration: Calibration | None = None,
) -> Ranking:
    """Rank rows by their scores under a configuration.

    `paper` and `auto` fuse DON and NOD by TOPSIS, each at its own step size (see
    `step_of`), and `panel` fuses the scores of `config.criteria`; `calibrated` ranks
    by the regression's closeness.

    Args:
        columns: Scores of n rows.
        config: The section `donod`.
        head_norm: Frobenius norm of the output head.
        training_learning_rate: Learning rate of the training that follows.
        goals: Names of the registered scores, with their goals.
        calibration: What `fit_calibration` gave; needed by preset `calibrated`.

    Returns:
        The ranking of the n rows.

    Raises:
        ConfigError: A criterion is no score, or the calibration is missing.
        ScoringError: No row has finite scores, or the preset needs a step size and
            there is none.
    """
    criteria = _criteria(columns, config, goals or {}, calibration)
    step = _step(columns, config, head_norm, training_learning_rate, criteria)
    if config.preset == "calibrated" and calibration is not None:
        closeness = calibration.closeness(columns)
    else:
        scores = {**columns, "don": step.don, "nod": step.nod}
        closeness = topsis(
            {name: scores[name] for name in criteria},
            {name: weight for name, (_, weight) in criteria.items()},
            {name: goal for name, (goal, _) in criteria.items()},
            config.normalization,
        )
    if not np.isfinite(closeness).any():
        raise _nothing_finite(closeness.size)
    return Ranking(
        n_tokens=columns["n_tokens"],
        don=step.don,
        nod=step.nod,
        closeness=closeness,
        rank=rank_rows(closeness),
        learning_rate=step.learning_rate,
        crossover_median=step.crossover_median,
        crossover_q95=step.crossover_q95,
        preset=config.preset,
        criteria=criteria,
    )


def _criteria(
    columns: Columns,
    config: DonodConfig,
    goals: Mapping[str, Goal],
    calibration: Calibration | None,
) -> Criteria:
    """Scores that the preset looks at, each with goal and weight."""
    if config.preset == "calibrated":
        if calibration is None:
            raise ConfigError(
                "donod.preset calibrated ranks by a regression on the audit's clones, "
                "got none; enable donod.audit and prune again from the rows, or "
                "choose another preset"
            )
        return {
            name: ("min" if coefficient > 0 else "max", abs(coefficient))
            for name, coefficient in calibration.coefficients.items()
        }
    if config.preset != "panel":
        return {
            "don": (config.goals.don, config.weights.don),
            "nod": (config.goals.nod, config.weights.nod),
        }
    criteria = dict(DEFAULT_CRITERIA)
    if config.criteria is not None:
        criteria = {name: (c.goal, c.weight) for name, c in config.criteria.items()}
    for name in criteria:
        _check_stored(name, columns, goals)
    return criteria


def _check_stored(name: str, columns: Columns, goals: Mapping[str, Goal]) -> None:
    known = sorted({*columns, "don", "nod"})
    if name == "ifd" and ("ifd" not in columns or np.isnan(columns["ifd"]).all()):
        raise ConfigError(
            "donod.criteria names ifd, which no row has; set `scoring.ifd: true` in "
            f"section donod, or use some of {known}"
        )
    if name in known:
        return
    if name in goals:
        raise ConfigError(
            f"donod.criteria names {name!r}, with which the rows were not scored; "
            f"prune again from the rows, or use some of {known}"
        )
    raise ConfigError(
        f"donod.criteria names {name!r}, which is no score; use some of {known}"
    )


def _step(
    columns: Columns,
    config: DonodConfig,
    head_norm: float,
    training_learning_rate: float,
    criteria: Criteria,
) -> Step:
    """The step of every preset; an error only where a criterion needs it."""
    needed = not criteria.keys().isdisjoint(("don", "nod"))
    names = step_columns(config.probe)
    if not set(names) <= columns.keys():
        if needed:
            raise ScoringError(
                f"donod.probe with optimizer {config.probe.optimizer} and "
                f"{config.probe.steps} steps needs the scores {' and '.join(names)}, "
                "with which the rows were not scored; prune again from the rows"
            )
        nothing = np.full(columns["n_tokens"].size, np.nan)
        return Step(nothing, nothing, *[float("nan")] * 3)
    step = step_of(columns, config, head_norm, training_learning_rate)
    if needed and not step.learning_rate > 0:
        if not np.logical_and(*(np.isfinite(columns[name]) for name in names)).any():
            raise _nothing_finite(step.don.size)
        raise ScoringError(
            f"donod.preset {config.preset} found no usable probe step; set "
            "donod.probe.learning_rate"
        )
    return step


def _nothing_finite(n_rows: int) -> ScoringError:
    return ScoringError(
        f"none of {n_rows} rows has a finite score; check that the rows have trained "
        "tokens and that the model gives finite logits"
    )


def rank_rows(closeness: FloatArray) -> NDArray[np.int64]:
    """Rank rows by closeness, highest first.

    Args:
        closeness: (n,) closeness; NaN where a row has none.

    Returns:
        (n,) ranks from 1 (best) to n, without gaps. Ties keep the order of the rows;
        NaN comes last, in the order of the rows.
    """
    order = np.argsort(-closeness, kind="stable")
    ranks = np.empty(closeness.size, dtype=np.int64)
    ranks[order] = np.arange(1, closeness.size + 1)
    return ranks
