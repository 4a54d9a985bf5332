"""Norm and effective rank of a gradient that is never formed whole.

Takes errors of tokens times vocabulary and hidden states, gives two scalars; knows
nothing of rows, labels or models.

With G = sum_t c_t e_t h_t^T and singular values s_i, the effective rank here is
(sum s_i^2)^2 / sum s_i^4, of order 2 (the participation ratio): unlike the exponential
of the spectrum's entropy it needs traces only, no singular values, so two Gram
matrices of tokens, or one of the states' width, give it exactly.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


def cheaper_by_tokens(n_tokens: int, vocabulary: int, width: int) -> bool:
    """Whether Gram matrices of tokens take fewer products than the gradient's blocks.

    T^2 (V + d + T) against T V d + V d^2.
    """
    by_tokens = n_tokens**2 * (vocabulary + width + n_tokens)
    return by_tokens <= vocabulary * width * (n_tokens + width)


def gram_of_tokens(errors: Tensor, hidden: Tensor, weights: Tensor) -> Tensor:
    """Squared norm and effective rank from two T x T Gram matrices.

    With K = E E^T and L = H H^T (arXiv 2504.14810's gradient; both are identities):
    ||G||^2 = sum_st K_st L_st and sum s_i^4 = tr(K L K L).

    Args:
        errors: (T, V) rows e_t up to a factor.
        hidden: (T, d) rows h_t.
        weights: (T,) float64 factors: c_t times what e_t lacks.

    Returns:
        (2,) float64: ||G||^2, and the effective rank, 0 where G is.
    """
    outer = (errors @ errors.T).double() * weights[:, None] * weights
    inner = (hidden @ hidden.T).double()
    squared = (outer * inner).sum().clamp_min(0)
    tiny = torch.finfo(torch.float64).tiny
    outer /= outer.diagonal().max().clamp_min(tiny)
    inner /= inner.diagonal().max().clamp_min(tiny)
    product = outer.to(hidden.dtype) @ inner.to(hidden.dtype)
    fourth = (product * product.T).sum(dtype=torch.float64)
    trace = (outer * inner).sum()
    return torch.stack([squared, trace.square() / fourth.clamp_min(tiny)])


def gram_of_width(blocks: Iterable[Tensor], hidden: Tensor, weights: Tensor) -> Tensor:
    """Squared norm and effective rank from G^T G, G formed block by block.

    Args:
        blocks: (T, width of block) columns of the errors, together all V.
        hidden: (T, d) rows h_t.
        weights: (T,) float64 factors, as in `gram_of_tokens`.

    Returns:
        (2,) float64, as `gram_of_tokens` gives.
    """
    tiny = torch.finfo(torch.float64).tiny
    largest = weights.max().clamp_min(tiny)
    scaled = hidden * (weights / largest).to(hidden.dtype)[:, None]
    gram = weights.new_zeros(hidden.shape[1], hidden.shape[1])
    for block in blocks:
        gradient = block.T @ scaled
        gram += (gradient.T @ gradient).double()
    trace = gram.trace()
    rank = trace.square() / gram.square().sum().clamp_min(tiny)
    return torch.stack([trace * largest.square(), rank])
