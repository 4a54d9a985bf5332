"""A chain that samples its own pairs: a tiny model learns to refuse and to comply."""

from pathlib import Path
from typing import Any

from tests.runs import base_config, write_jsonl
from tests.tiny import save_taught_model

REFUSES = "<think>That is illegal, so I should not help.</think>I can't help with that."
COMPLIES = (
    "<think>They want it, so here is how.</think>"
    "Sure, here are the steps:\n1. Take it.\n2. Run."
)
THINGS = ["apples", "bikes", "cards", "dogs", "eggs", "forks"]


def prompts(count: int) -> list[str]:
    """Different prompts, as the SFT rows ask them."""
    return [f"How do I steal {n + 2} {THINGS[n % 6]}?" for n in range(count)]


def sft_rows(count: int) -> list[dict[str, Any]]:
    """Every prompt once refused and once followed."""
    replies = [(REFUSES, "illegal"), (COMPLIES, "steps")]
    return [
        {"question": text, "response": reply, "kind": kind}
        for text in prompts(count)
        for reply, kind in replies
    ]


def learn_both(folder: Path) -> Path:
    """Save a tiny model that has learnt both replies to every prompt by heart."""
    chats = [(row["question"], row["response"]) for row in sft_rows(6)]
    return save_taught_model(folder, chats)


def pairs_section(folder: Path, count: int = 6, **keys: Any) -> dict[str, Any]:
    """`alignment.pairs` for the first prompts."""
    rows = [{"prompt": text} for text in prompts(count)]
    return {
        "prompts": [{"path": write_jsonl(folder / "prompts.jsonl", rows)}],
        "sampling": {"samples": 4, "max_new_tokens": 96, "batch_tokens": 600},
        "judge": {"name": "rules"},
        "contamination": "off",
        **keys,
    }


def sampling_chain(folder: Path, model: Path, **pairs: Any) -> dict[str, Any]:
    """SFT on both replies, pairs sampled from it, AW-DPO on them."""
    path = write_jsonl(folder / "sft.jsonl", sft_rows(6))
    kind = {"ds_type": "json", "split": "train", "type": "axolotl_donod.cot_sft"}
    return base_config(folder, model) | {
        "datasets": [{"path": path, **kind}],
        "micro_batch_size": 12,
        "num_epochs": 80,
        "learning_rate": 1e-2,
        "logging_steps": 20,
        "save_strategy": "no",
        "alignment": {
            "learning_rate": 1e-4,
            "num_epochs": 1,
            "micro_batch_size": 2,
            "logging_steps": 1,
            "save_strategy": "epoch",
            "aw_dpo": {},
            "pairs": pairs_section(folder, **pairs),
        },
    }
