"""What `tests.benchmarks.real_chain` costs: token counts in, seconds by phase out."""

from pathlib import Path
from typing import Any

from tests.benchmarks.real_data import Row, Sizes, n_tokens

# Measured: a forward pass of SmolLM2-135M over 216 tokens takes 0.6 s on one core.
SECONDS_PER_TOKEN = 0.6 / 216
SMOLLM2_BYTES = 538_090_408
PADDING = 1.25
STARTS_SECONDS = 100.0
SECOND_CORE = 0.8


def count_tokens(tokenizer: Any, rows: list[Row]) -> int:
    """Tokens of SFT rows, of both sides of pairs, or of prompts to be answered."""
    conversations = []
    for row in rows:
        if "messages" in row:
            conversations.append(row["messages"])
        elif "chosen" in row:
            for side in ("chosen", "rejected"):
                reply = {"role": "assistant", "content": row[side]}
                conversations.append([*row["prompt"], reply])
        else:
            conversations.append([{"role": "user", "content": row["prompt"]}])
    return sum(n_tokens(tokenizer, messages) for messages in conversations)


def relative_size(model: Path) -> float:
    """Bytes of weights in units of SmolLM2-135M's in float32."""
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    return weights / SMOLLM2_BYTES


def estimate(
    tokens: dict[str, int], n_prompts: int, sizes: Sizes, *, relative: float, cores: int
) -> dict[str, float]:
    """Seconds by phase.

    A trained token costs three forward passes in SFT and four in AW-DPO, whose
    reference is one of them; held-out files are read before and after, pairs by two
    models; three models answer. Half of the SFT rows are trained on.

    Args:
        tokens: Tokens of each file of `real_data.build`.
        n_prompts: How many prompts are answered.
        sizes: For the length of the answers.
        relative: Size of the model, see `relative_size`.
        cores: How many run at once; the second and later ones gain a little less.
    """
    sft = tokens["sft_gsm8k"] + tokens["sft_star1"]
    held = tokens["held_gsm8k"] + tokens["held_star1"]
    pairs = tokens["pairs_hh"] + tokens["pairs_star1"]
    pairs_held = tokens["pairs_hh_held"] + tokens["pairs_star1_held"]
    passes = {
        "scoring": sft,
        "sft": PADDING * (0.5 * sft * 3 + held * 2),
        "alignment": PADDING * (pairs * 4 + pairs_held * 2 * 2),
        # A generated token costs about two that are read.
        "answers": 3 * (tokens["prompts"] + n_prompts * sizes.new_tokens * 2),
    }
    unit = SECONDS_PER_TOKEN * relative / (1 + SECOND_CORE * (cores - 1))
    seconds = {name: count * unit for name, count in passes.items()}
    return seconds | {"starts and merge": STARTS_SECONDS}
