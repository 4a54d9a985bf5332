"""A collated batch in, what the model reads and which states predict which token out.

Two layouts: `plain` has one row per response, `shared` one per pair, in which both
responses follow one copy of their prompt. Knows nothing of models or losses.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """Model inputs, and where the N predicted completion tokens are.

    Attributes:
        model_inputs: Arguments of the model's forward pass.
        row: [N], row of the hidden state that predicts each token.
        position: [N], its position in that row.
        labels: [N] token ids.
        mask: [2B, L-1] bool, the predicted tokens in the batch's own shape and in the
            same order; its first column is the second token.
    """

    model_inputs: dict[str, Any]
    row: Tensor
    position: Tensor
    labels: Tensor
    mask: Tensor

    def states(self, hidden: Tensor) -> Tensor:
        """[N, d] of [rows, positions, d]."""
        return hidden[self.row, self.position]

    def spread(self, values: Tensor) -> Tensor:
        """[2B, L-1] of [N], with zeros where nothing is predicted."""
        empty = values.new_zeros(self.mask.shape)
        return empty.masked_scatter(self.mask, values)


def plain_layout(batch: Batch) -> Layout:
    """One row per response, as the collator gives them."""
    mask = batch["completion_mask"][:, 1:].bool()
    row, position = mask.nonzero(as_tuple=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    labels = batch["input_ids"][:, 1:][mask]
    return Layout(inputs | {"use_cache": False}, row, position, labels, mask)


def shared_layout(batch: Batch, dtype: torch.dtype) -> Layout:
    """One row per pair: prompt, chosen response, rejected response.

    The rejected tokens have the positions they would have right after the prompt, and
    do not see the chosen ones, so every hidden state is that of the plain layout.

    Args:
        batch: Padded on the right, chosen half first.
        dtype: Of the additive attention mask.
    """
    n_pairs = len(batch["input_ids"]) // 2
    completion = batch["completion_mask"].bool()
    length = batch["attention_mask"].sum(dim=1)
    n_completion = completion.sum(dim=1)
    prompt = (length - n_completion)[:n_pairs]
    end_of_chosen, n_rejected = length[:n_pairs], n_completion[n_pairs:]
    end = end_of_chosen + n_rejected
    place = torch.arange(int(end.max()), device=length.device).expand(n_pairs, -1)
    in_rejected = place >= end_of_chosen.unsqueeze(1)
    shift = (end_of_chosen - prompt).unsqueeze(1)
    position_ids = torch.where(in_rejected, place - shift, place)
    width = batch["input_ids"].shape[1]
    source = position_ids.clamp(max=width - 1)
    input_ids = torch.where(
        in_rejected,
        batch["input_ids"][n_pairs:].gather(1, source),
        batch["input_ids"][:n_pairs].gather(1, place.clamp(max=width - 1)),
    )
    mask = completion[:, 1:]
    row, position = mask.nonzero(as_tuple=True)
    pair = row % n_pairs
    moved = (row >= n_pairs) & (position >= prompt[pair])
    inputs = {
        "input_ids": input_ids,
        "attention_mask": _pair_mask(prompt, end_of_chosen, end, place, dtype),
        "position_ids": position_ids,
        "use_cache": False,
    }
    position = position + moved * shift[pair, 0]
    return Layout(inputs, pair, position, batch["input_ids"][:, 1:][mask], mask)


def _pair_mask(
    prompt: Tensor,
    end_of_chosen: Tensor,
    end: Tensor,
    place: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """[B, 1, S, S], 0 where a query sees a key and the lowest number elsewhere."""
    query, key = place.unsqueeze(2), place.unsqueeze(1)
    prompt, end_of_chosen, end = (
        bound.view(-1, 1, 1) for bound in (prompt, end_of_chosen, end)
    )
    hidden = (query >= end_of_chosen) & (key >= prompt) & (key < end_of_chosen)
    seen = (key <= query) & (key < end) & ~hidden
    mask = torch.zeros(seen.shape, dtype=dtype, device=place.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min).unsqueeze(1)
