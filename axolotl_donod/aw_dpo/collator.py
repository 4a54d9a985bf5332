"""Tokenised preference rows in, one padded batch with its segments and weights out.

Extends TRL's collator; knows nothing of how lengths and weights were found.
"""

from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

REASONING_LEN_COLUMNS = ("chosen_reasoning_len", "rejected_reasoning_len")
WEIGHTS_COLUMN = "segment_weights"
SEGMENT_COLUMNS = (*REASONING_LEN_COLUMNS, WEIGHTS_COLUMN)


@dataclass
class AwDpoCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's preference collator plus what AW-DPO needs of each pair.

    Beside the stock tensors (`input_ids`, `attention_mask` and `completion_mask`, each
    [2B, L] with the chosen half first, and `ref_{chosen,rejected}_logps`, [B, 2] once
    precomputed) a batch holds `reasoning_len` [2B] in tokens, in the same order, and
    `segment_weights` [B, 2] in float32, reasoning first. `reasoning_len` counts tokens
    before truncation, so it may exceed what is left of a response.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate rows that carry `SEGMENT_COLUMNS` beside TRL's token columns."""
        batch: dict[str, Any] = super().torch_call(examples)
        lengths = [row[name] for name in REASONING_LEN_COLUMNS for row in examples]
        batch["reasoning_len"] = torch.tensor(lengths, dtype=torch.long)
        batch["segment_weights"] = torch.tensor(
            [row[WEIGHTS_COLUMN] for row in examples], dtype=torch.float32
        )
        return batch
