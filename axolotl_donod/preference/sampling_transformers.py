"""Samples of a Hugging Face model in this process: batches in, samples out.

Loads the model and halves batches that do not fit into memory; knows nothing of files
or ranks.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from axolotl_donod.errors import SamplingError
from axolotl_donod.preference.sampling_batches import Row, grown, split
from axolotl_donod.preference.sampling_config import SamplingConfig
from axolotl_donod.preference.sampling_generator import Generator, Watch
from axolotl_donod.preference.sampling_prompts import stop_ids
from axolotl_donod.preference.sampling_store import Sample
from axolotl_donod.preference.sampling_texts import decoder
from axolotl_donod.pruning.model import ScoringModel

LOG = logging.getLogger("axolotl.donod")


def sample_with_transformers(
    batches: Sequence[list[Row]],
    config: SamplingConfig,
    model: ScoringModel,
    watch: Watch | None = None,
) -> Iterator[list[Sample]]:
    """Draw the samples of each batch, or of its halves where memory runs out.

    Raises:
        ConfigError: A stop token is none.
        SamplingError: One row alone does not fit into memory, or the model keeps
            another state than keys and values, as Mamba does.
    """
    tokenizer = model.tokenizer()
    with model.loaded() as network:
        stops = stop_ids(tokenizer, config.stop_tokens) | _model_stops(network)
        generator = Generator(network, decoder(tokenizer), config, stops, watch)
        yield from fitting(generator, batches, config)


def fitting(
    generator: Generator, batches: Sequence[list[Row]], config: SamplingConfig
) -> Iterator[list[Sample]]:
    """Draw batches; once one does not fit into memory, it and all others are halved.

    Raises:
        SamplingError: One row alone does not fit.
    """
    budget = config.batch_tokens
    waiting = list(reversed(batches))
    while waiting:
        rows = waiting.pop()
        parts = list(split(rows, config.max_new_tokens, budget))
        if len(parts) > 1:
            waiting.extend(reversed(parts))
            continue
        samples = _drawn(generator, rows)
        if samples is not None:
            yield samples
            continue
        _free_memory()
        tokens = grown(rows, config.max_new_tokens)
        if len(rows) == 1:
            raise SamplingError(
                f"one answer of {tokens} tokens, prompt included, does not fit into "
                "memory; lower sampling.max_new_tokens or max_prompt_tokens"
            )
        budget = tokens // 2
        LOG.warning(
            "DONOD: %d answers of up to %d tokens do not fit into memory; going on "
            "with batch_tokens %d",
            len(rows),
            tokens,
            budget,
        )
        waiting.append(rows)


def _drawn(generator: Generator, rows: list[Row]) -> list[Sample] | None:
    """Samples of rows, None where memory ran out."""
    from accelerate.utils.memory import should_reduce_batch_size

    try:
        return generator.generate(rows)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        return None


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _model_stops(network: Any) -> set[int]:
    """Ids that the model's own generation config ends with."""
    ids = network.generation_config.eos_token_id
    return set() if ids is None else {ids} if isinstance(ids, int) else set(ids)
