"""One short LoRA run in plain PyTorch: token rows in, held-out cross-entropies out.

It knows nothing of how the rows were chosen.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axolotl_donod.pruning.rows import IGNORED_LABEL
from tests.benchmarks.noise import TokenRow


@dataclass(frozen=True)
class Budget:
    """What every run may spend: `steps` optimiser steps of `batch` rows."""

    steps: int = 8
    batch: int = 8
    learning_rate: float = 1e-3
    warmup: int = 2
    rank: int = 8
    # Rows that go through the model at once; shorter ones are padded to the longest.
    micro_batch: int = 4


def row_order(n_rows: int, budget: Budget, seed: int) -> list[int]:
    """Rows in the order of training: whole epochs, each shuffled anew, then cut."""
    draw = random.Random(seed)
    order: list[int] = []
    while len(order) < budget.steps * budget.batch:
        order += draw.sample(range(n_rows), n_rows)
    return order[: budget.steps * budget.batch]


def learning_rate(step: int, budget: Budget) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    if step < budget.warmup:
        return budget.learning_rate * (step + 1) / budget.warmup
    done = (step - budget.warmup) / max(1, budget.steps - budget.warmup)
    return budget.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def train(
    model_folder: Path,
    rows: Sequence[TokenRow],
    held_out: Sequence[TokenRow],
    budget: Budget,
    seed: int,
) -> dict[str, Any]:
    """Train an adapter on rows; the mean held-out cross-entropy after it.

    The loss of a step is the mean over the trained tokens of its batch, the held-out
    loss the mean over all held-out answer tokens, both in nats.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32),
        LoraConfig(
            r=budget.rank,
            lora_alpha=2 * budget.rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.0)
    order = row_order(len(rows), budget, seed)
    losses = []
    model.train()
    for step in range(budget.steps):
        chosen = order[step * budget.batch : (step + 1) * budget.batch]
        optimizer.param_groups[0]["lr"] = learning_rate(step, budget)
        losses.append(_gradient(model, [rows[index] for index in chosen], budget))
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {
        "held_out": held_out_loss(model, held_out, budget),
        "training_losses": losses,
    }


def held_out_loss(model: Any, rows: Sequence[TokenRow], budget: Budget) -> float:
    """Mean cross-entropy of all trained tokens of the rows."""
    import torch

    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for part in _micro_batches(rows, budget):
            loss, tokens = _summed_loss(model, part)
            total += float(loss)
            count += tokens
    return total / count


def _gradient(model: Any, rows: Sequence[TokenRow], budget: Budget) -> float:
    count = sum(_trained(row) for row in rows)
    total = 0.0
    for part in _micro_batches(rows, budget):
        loss, _ = _summed_loss(model, part)
        (loss / count).backward()
        total += float(loss.detach()) / count
    return total


def _micro_batches(
    rows: Sequence[TokenRow], budget: Budget
) -> Iterator[list[TokenRow]]:
    """Rows of like length together."""
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    for start in range(0, len(ordered), budget.micro_batch):
        yield ordered[start : start + budget.micro_batch]


def _trained(row: TokenRow) -> int:
    return sum(label != IGNORED_LABEL for label in row["labels"][1:])


def _summed_loss(model: Any, rows: Sequence[TokenRow]) -> tuple[Any, int]:
    import torch
    from torch.nn.functional import cross_entropy

    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), IGNORED_LABEL)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        n = len(row["input_ids"])
        ids[place, :n] = torch.tensor(row["input_ids"])
        labels[place, :n] = torch.tensor(row["labels"])
        mask[place, :n] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    targets = labels[:, 1:].flatten()
    loss = cross_entropy(
        logits[:, :-1].flatten(0, 1),
        targets,
        ignore_index=IGNORED_LABEL,
        reduction="sum",
    )
    return loss, int((targets != IGNORED_LABEL).sum())
