"""The panel of one row: takes states and logits of its answer, gives scalars.

It knows nothing of models, batches, files or configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Names of scores to (n,) arrays, one entry per row; `n_tokens` is int64, the rest
# float64 with NaN where a row has no such score.
Columns = Mapping[str, NDArray[Any]]

# Elements of one float32 block of probabilities: 64 MiB, whatever the vocabulary.
_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class RowScalars:
    """What one row contributes to every score, with token weights 1/T.

    Attributes:
        n_tokens: T, the number of predicted trained tokens.
        ce: Mean cross-entropy, nats.
        entropy: Mean entropy of the predictions, nats.
        w_dot_g: Inner product of head weight and its gradient of the mean loss.
        g_norm_sq: Squared Frobenius norm of that gradient.
        el2n: Mean over tokens of the 2-norm of probabilities minus one-hot label.
        token_accuracy: Share of tokens whose label has the largest logit.
    """

    n_tokens: int
    ce: float
    entropy: float
    w_dot_g: float
    g_norm_sq: float
    el2n: float
    token_accuracy: float

    @classmethod
    def undefined(cls, n_tokens: int) -> "RowScalars":
        """A row that has no scalars: no trained tokens, or non-finite logits."""
        return cls(n_tokens, *[float("nan")] * 6)


PANEL = tuple(field.name for field in fields(RowScalars))


def panel_columns(rows: Sequence[RowScalars]) -> dict[str, NDArray[Any]]:
    """Columns in the order of the rows, one per field of `RowScalars`."""
    return {
        field.name: np.array(
            [getattr(row, field.name) for row in rows],
            dtype=np.int64 if field.name == "n_tokens" else np.float64,
        )
        for field in fields(RowScalars)
    }


def row_scalars(
    hidden: Tensor, logits: Tensor, labels: Tensor, bias: Tensor | None = None
) -> RowScalars:
    """Scalars of one row from its answer positions alone.

    With e_t = softmax(logits_t) - onehot(y_t) and c_t = 1/T (arXiv 2504.14810 with
    the output projection as proxy; the reduction to scalars is an identity):
    ||G||^2 = sum_st c_s c_t (e_s.e_t)(h_s.h_t) and <W,G> = sum_t c_t e_t.(W h_t).

    Args:
        hidden: (T, d) states after the final norm at positions that predict a label.
        logits: (T, V) output of the head there, its bias included.
        labels: (T,) token ids in [0, V).
        bias: (V,) bias of the head, which the measured step leaves alone.

    Returns:
        The scalars; undefined if T is 0 or a logit is not finite.
    """
    n_tokens = labels.shape[0]
    if n_tokens == 0:
        return RowScalars.undefined(0)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    hidden, logits = hidden.to(dtype), logits.to(dtype)
    log_odds = _log_odds_against(logits, labels)
    ce = torch.logaddexp(log_odds, torch.zeros_like(log_odds))
    accuracy = (logits.argmax(1) == labels).double()
    gram, inner, entropy = _accumulate_blocks(logits, labels, log_odds, ce, bias)
    el2n = gram.diagonal().clamp_min(0).sqrt()
    g_norm_sq = _gram_product_sum(gram, hidden).clamp_min(0) / n_tokens**2
    per_token = torch.stack([ce, entropy, inner, el2n, accuracy])
    summary = torch.cat([per_token.mean(1), g_norm_sq[None]])
    if not bool(summary.isfinite().all()):
        return RowScalars.undefined(n_tokens)
    mean_ce, mean_entropy, w_dot_g, mean_el2n, hits, norm_sq = summary.tolist()
    return RowScalars(
        n_tokens, mean_ce, mean_entropy, w_dot_g, norm_sq, mean_el2n, hits
    )


def _log_odds_against(logits: Tensor, labels: Tensor) -> Tensor:
    """log((1 - p_y) / p_y) per token, (T,) float64.

    Cross-entropy is its softplus and 1 - p_y its sigmoid, both without the
    cancellation that 1 - p_y suffers on tokens the model is sure of.
    """
    rest = torch.empty(labels.shape, dtype=torch.float64, device=logits.device)
    step = max(1, _BLOCK_ELEMENTS // logits.shape[1])
    for start in range(0, labels.shape[0], step):
        rows = slice(start, start + step)
        others = logits[rows].scatter(1, labels[rows, None], -torch.inf)
        rest[rows] = others.logsumexp(1).double()
    return rest - logits.gather(1, labels[:, None])[:, 0].double()


def _accumulate_blocks(
    logits: Tensor,
    labels: Tensor,
    log_odds: Tensor,
    ce: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the vocabulary, block by block so that no second (T, V) exists.

    Returns:
        The (T, T) Gram matrix of e, e.(W h) per token, and entropy per token, all
        float64.
    """
    n_tokens, vocabulary = logits.shape
    label_logits = logits.gather(1, labels[:, None])
    log_total = (label_logits + ce[:, None]).to(logits.dtype)
    label_bias = 0.0 if bias is None else bias.to(logits.dtype)[labels][:, None]
    gram = log_odds.new_zeros(n_tokens, n_tokens)
    inner = torch.zeros_like(log_odds)
    entropy = torch.exp(-ce) * ce
    label_e = -torch.sigmoid(log_odds).to(logits.dtype)
    width = max(1, _BLOCK_ELEMENTS // n_tokens)
    for start in range(0, vocabulary, width):
        z = logits[:, start : start + width]
        log_p = z - log_total
        e = log_p.exp()
        _set_label_entry(e, labels - start, torch.zeros_like(label_e))
        entropy -= (e * log_p).sum(1).double()
        # The e of a token sum to zero, so its logits may be taken from the label's.
        gap = z - label_logits
        if bias is not None:
            gap = gap - (bias[start : start + width].to(z.dtype) - label_bias)
        inner += (e * gap).sum(1).double()
        _set_label_entry(e, labels - start, label_e)
        gram += (e @ e.T).double()
    return gram, inner, entropy


def _set_label_entry(block: Tensor, column: Tensor, value: Tensor) -> None:
    """Write value_t at column_t of row t where the block has that column.

    Boolean indexing would do the same but makes a GPU wait on every block.
    """
    width = block.shape[1]
    inside = (column >= 0) & (column < width)
    index = column.clamp(0, width - 1)[:, None]
    kept = block.gather(1, index)[:, 0]
    block.scatter_(1, index, torch.where(inside, value, kept)[:, None])


def _gram_product_sum(gram: Tensor, hidden: Tensor) -> Tensor:
    """sum_st gram_st (h_s.h_t), accumulated in float64 over blocks of tokens."""
    total = gram.new_zeros(())
    step = max(1, _BLOCK_ELEMENTS // hidden.shape[0])
    for start in range(0, hidden.shape[0], step):
        products = (hidden[start : start + step] @ hidden.T).double()
        total += (gram[start : start + step] * products).sum()
    return total
