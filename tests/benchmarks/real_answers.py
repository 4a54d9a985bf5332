"""Greedy answers of one model to real prompts: a folder in, texts and counts out."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.real_data import Row, Sizes

CLOSED = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class Answers:
    """Whole answers, and the same cut to the length that is quoted."""

    texts: list[str]
    quoted: list[str]

    def closed(self) -> int:
        """How many contain a `<think>` that is closed."""
        return sum(bool(CLOSED.search(text)) for text in self.texts)

    def opened(self) -> int:
        """How many contain a `<think>`, closed or not."""
        return sum("<think>" in text for text in self.texts)


def answer(
    model: Path, adapter: Path | None, prompts: list[Row], sizes: Sizes
) -> Answers:
    """Answer all prompts in one left-padded batch, an adapter put on the model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, adapter)
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for row in prompts
    ]
    batch = tokenizer(
        texts, return_tensors="pt", padding=True, add_special_tokens=False
    )
    with torch.inference_mode():
        ids = network.eval().generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=sizes.new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    new = ids[:, batch["input_ids"].shape[1] :]
    whole = tokenizer.batch_decode(new, skip_special_tokens=True)
    cut = tokenizer.batch_decode(
        new[:, : sizes.quoted_tokens], skip_special_tokens=True
    )
    return Answers(whole, cut)
