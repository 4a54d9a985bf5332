"""A local chat model that follows instructions: takes texts, gives its replies."""

from collections.abc import Iterator, Sequence
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]

from axolotl_donod.errors import ConfigError
from axolotl_donod.evaluation.styles import Writer

BATCH = 8


def local_writer(model: str, max_new_tokens: int = 512) -> Writer:
    """Load a model and return a function that lets it answer, greedily.

    Args:
        model: Folder or Hub id of a causal model with a chat template.
        max_new_tokens: Longest reply, in tokens.

    Raises:
        ConfigError: The model cannot be loaded or has no chat template.
    """
    tokenizer, network = _loaded(model)

    def write(asked: Sequence[str]) -> Iterator[tuple[str, bool]]:
        for start in tqdm(range(0, len(asked), BATCH), unit="batch", desc="writing"):
            batch = asked[start : start + BATCH]
            yield from _replies(tokenizer, network, batch, max_new_tokens)

    return write


def _loaded(model: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        network = AutoModelForCausalLM.from_pretrained(model, dtype="auto").to(device)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model {model!r} cannot be loaded: {error}; give a folder or a Hub id"
        ) from error
    if tokenizer.chat_template is None:
        raise ConfigError(
            f"model {model!r} has no chat template; give a model that is made for chat"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, network


def _replies(
    tokenizer: Any, network: Any, asked: Sequence[str], max_new_tokens: int
) -> Iterator[tuple[str, bool]]:
    """Each reply, and whether it ran into the limit of tokens."""
    import torch

    inputs = tokenizer.apply_chat_template(
        [[{"role": "user", "content": text}] for text in asked],
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
    ).to(network.device)
    with torch.inference_mode():
        tokens = network.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
    new = tokens[:, inputs["input_ids"].shape[1] :]
    ends = network.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    for row in new.tolist():
        cut = len(row) >= max_new_tokens and not ends & set(row)
        yield tokenizer.decode(row, skip_special_tokens=True), cut
