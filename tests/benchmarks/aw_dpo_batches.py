"""Batches of real texts for `tests.benchmarks.aw_dpo_step`, every row of one length.

Pairs of HH-RLHF and of STAR-1 in turns, cut to the tokens that are asked for.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.real_data import DATA, dialogue


@dataclass(frozen=True)
class Sizes:
    """Shape of a step, and how many are timed."""

    pairs: int = 4
    prompt: int = 150
    response: int = 150
    steps: int = 20


def batches(model: Path, sizes: Sizes, count: int) -> list[dict[str, Any]]:
    """Batches of real texts, every row of the full length."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    pairs = _hh(tokenizer, sizes)
    thinking = _star1(tokenizer, sizes)
    found = []
    for _ in range(count):
        rows = [next(thinking if index % 2 else pairs) for index in range(sizes.pairs)]
        sides = [[*p, *c] for p, c, _, _ in rows] + [[*p, *r] for p, _, r, _ in rows]
        ids = torch.tensor(sides)
        completion = torch.zeros_like(ids)
        completion[:, sizes.prompt :] = 1
        found.append(
            {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "completion_mask": completion,
                "reasoning_len": torch.tensor([row[3] for row in rows] * 2),
                "segment_weights": torch.full((sizes.pairs, 2), 0.5),
            }
        )
    return found


def _hh(tokenizer: Any, sizes: Sizes) -> Any:
    with gzip.open(DATA / "hh_rlhf/test.jsonl.gz", "rt", encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            both = [dialogue(row[side]) for side in ("chosen", "rejected")]
            if None in both:
                continue
            ids = [
                _ids(tokenizer, text)
                for text in (
                    tokenizer.apply_chat_template(both[0][:-1], tokenize=False),
                    *(messages[-1]["content"] * 3 for messages in both),
                )
            ]
            if _long_enough(ids, sizes) and ids[1] != ids[2]:
                yield (*_cut(ids, sizes), 0)


def _star1(tokenizer: Any, sizes: Sizes) -> Any:
    rows = json.loads((DATA / "star1/STAR-1.json").read_text("utf-8"))
    for before, row in zip(rows[::2], rows[1::2], strict=False):
        texts = (
            f"{before['question']}\n{before['response']}\n{row['question']}\n",
            row["response"],
            before["response"],
        )
        ids = [_ids(tokenizer, text) for text in texts]
        if _long_enough(ids, sizes):
            yield (*_cut(ids, sizes), sizes.response * 2 // 3)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _long_enough(ids: list[list[int]], sizes: Sizes) -> bool:
    lengths = (sizes.prompt, sizes.response, sizes.response)
    return all(len(part) >= n for part, n in zip(ids, lengths, strict=True))


def _cut(ids: list[list[int]], sizes: Sizes) -> tuple[list[int], ...]:
    return ids[0][-sizes.prompt :], ids[1][: sizes.response], ids[2][: sizes.response]
