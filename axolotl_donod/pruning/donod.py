"""Closed forms of DONOD: takes two scalars per row and a step, gives DON and NOD.

It knows nothing of models, rows, files or configuration.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def reduce_sum(
    w_dot_g: ArrayLike, g_norm_sq: ArrayLike, n_tokens: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Turn scalars of the mean token loss into those of the summed token loss.

    Args:
        w_dot_g: <W,G> of the mean loss, any shape.
        g_norm_sq: ||G||^2 of the mean loss, same shape.
        n_tokens: T, same shape.

    Returns:
        <W,G> * T and ||G||^2 * T^2 (identity: the gradient is linear in the loss).
    """
    tokens = np.asarray(n_tokens, dtype=np.float64)
    return (
        np.asarray(w_dot_g, dtype=np.float64) * tokens,
        np.asarray(g_norm_sq, dtype=np.float64) * tokens**2,
    )


def nod(
    w_dot_g: ArrayLike,
    g_norm_sq: ArrayLike,
    head_norm: float,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> FloatArray:
    """Norm of delta ||W - W'||_F of one SGD step (arXiv 2504.14810, closed form).

    NOD = lr * sqrt(||G||^2 + 2 wd <W,G> + wd^2 N^2).

    Args:
        w_dot_g: <W,G>, any shape.
        g_norm_sq: ||G||^2, same shape.
        head_norm: N = ||W||_F.
        learning_rate: Step size lr.
        weight_decay: L2 weight decay wd, added to the gradient as SGD does.

    Returns:
        NOD, float64, same shape; lower means a more stable row.
    """
    inner = np.asarray(w_dot_g, dtype=np.float64)
    squared = (
        np.asarray(g_norm_sq, dtype=np.float64)
        + 2 * weight_decay * inner
        + (weight_decay * head_norm) ** 2
    )
    return np.asarray(learning_rate * np.sqrt(np.maximum(squared, 0.0)))


def don(
    w_dot_g: ArrayLike,
    g_norm_sq: ArrayLike,
    head_norm: float,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> FloatArray:
    """Delta of norm ||W||_F - ||W'||_F of one SGD step (arXiv 2504.14810).

    Computed as (N^2 - ||W'||^2) / (N + ||W'||) with the N^2 cancelled by hand, since
    the difference of the two norms is far below their rounding:
    N^2 - ||W'||^2 = lr wd (2 - lr wd) N^2 + 2 lr (1 - lr wd) <W,G> - lr^2 ||G||^2.

    Args:
        w_dot_g: <W,G>, any shape.
        g_norm_sq: ||G||^2, same shape.
        head_norm: N = ||W||_F, positive.
        learning_rate: Step size lr.
        weight_decay: L2 weight decay wd, added to the gradient as SGD does.

    Returns:
        DON, float64, same shape; positive means that the row shrinks the norm.
    """
    inner = np.asarray(w_dot_g, dtype=np.float64)
    shrink = learning_rate * weight_decay
    lost = (
        shrink * (2 - shrink) * head_norm**2
        + 2 * learning_rate * (1 - shrink) * inner
        - learning_rate**2 * np.asarray(g_norm_sq, dtype=np.float64)
    )
    norm_after = np.sqrt(np.maximum(head_norm**2 - lost, 0.0))
    return np.asarray(lost / (head_norm + norm_after))


def crossover_learning_rate(w_dot_g: ArrayLike, g_norm_sq: ArrayLike) -> FloatArray:
    """Step size 2 |<W,G>| / ||G||^2 beyond which the step's own size rules DON.

    Without weight decay and with <W,G> > 0, DON is positive below it, zero at it and
    negative beyond it; far beyond, DON tends to -NOD^2 / 2N (identity).

    Args:
        w_dot_g: <W,G>, any shape.
        g_norm_sq: ||G||^2, same shape.

    Returns:
        The crossover, float64, same shape; NaN where the gradient is zero.
    """
    inner = np.abs(np.asarray(w_dot_g, dtype=np.float64))
    squared = np.asarray(g_norm_sq, dtype=np.float64)
    positive = np.where(squared > 0, squared, np.nan)
    return np.asarray(2 * inner / positive)
