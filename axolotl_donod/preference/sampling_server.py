"""Samples of an OpenAI-compatible server: batches in, samples out as they come.

Each sample is a request of its own with a seed of its own, so that what is missing can
be asked for alone. Knows nothing of files or ranks.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from axolotl_donod.chat import ChatClient, ChatFailure, ChatStopped
from axolotl_donod.errors import ConfigError, SamplingError
from axolotl_donod.preference.sampling_batches import Row
from axolotl_donod.preference.sampling_config import SamplingConfig
from axolotl_donod.preference.sampling_seeds import row_key
from axolotl_donod.preference.sampling_store import Finish, Sample
from axolotl_donod.preference.sampling_texts import is_unclosed
from axolotl_donod.think import THINK_CLOSE, THINK_OPEN
from axolotl_donod.workers import concurrently

LOG = logging.getLogger("axolotl.donod")
# Servers that parse reasoning out of an answer give it under one of these.
_REASONING = ("reasoning_content", "reasoning")
_SEEDS = 2**31
_BYTES_PER_TOKEN = 4


def sample_with_server(
    batches: Sequence[list[Row]], config: SamplingConfig
) -> Iterator[list[Sample]]:
    """Ask for the samples, several at a time.

    A request that the server refuses, or that fails too often, leaves its sample out;
    the others are asked for all the same before the error is raised.

    Raises:
        ConfigError: No server is configured, or its key is not in the environment.
        SamplingError: Samples are missing in the end, or the server is gone.
    """
    if config.server is None:
        raise ConfigError("sampling.backend: openai needs sampling.server; add it")
    rows = [row for batch in batches for row in batch]
    client = ChatClient(config.server)
    failures: list[str] = []
    workers = config.server.concurrency
    try:
        for position, answer in concurrently(
            lambda row: _ask(client, row, config), rows, workers, client.stop
        ):
            if isinstance(answer, Sample):
                yield [answer]
            else:
                row = rows[position]
                failures.append(f"answer {row.index} to {row.query.shown()}: {answer}")
    except ChatStopped as error:
        raise SamplingError(
            f"{error}. What was answered is stored: mend the cause and run again"
        ) from error
    finally:
        client.close()
        LOG.info("DONOD: sampling by %s: %s", config.server.base_url, client.bill())
    if failures:
        raise SamplingError(
            f"{len(failures)} of {len(rows)} answers could not be sampled; the first: "
            f"{failures[0]}. The others are stored: mend the cause or remove the "
            "prompt, and run again"
        )


def _ask(client: ChatClient, row: Row, config: SamplingConfig) -> Sample | ChatFailure:
    messages, further = row.query.turns, {}
    if config.prefix:
        messages = [*messages, {"role": "assistant", "content": config.prefix}]
        further = {"add_generation_prompt": False, "continue_final_message": True}
    try:
        answer = client.ask(
            messages,
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_new_tokens,
            seed=row_key(config.seed, *row.key) % _SEEDS,
            stop=config.stop_tokens or None,
            **further,
        )
        return sample_of(row, answer, client)
    except ChatFailure as failure:
        return failure


def sample_of(row: Row, answer: Any, client: ChatClient) -> Sample:
    """Read the sample out of a server's answer.

    Raises:
        ChatFailure: It has none.
    """
    try:
        choice = answer["choices"][0]
        text = _text(choice["message"])
    except (KeyError, IndexError, TypeError) as error:
        shown = client.masked(repr(answer))[:300]
        raise ChatFailure(
            f"the server's answer has no choices[0].message.content: {shown}"
        ) from error
    # Half of a surrogate pair, which JSON can carry and UTF-8 cannot.
    text = text.encode("utf-8", "replace").decode("utf-8")
    whole = row.query.opening + client.masked(text)
    spent: Finish = "unclosed" if is_unclosed(whole) else "length"
    ended = choice.get("finish_reason") != "length"
    return Sample(
        *row.key,
        text=whole,
        n_tokens=_counted(answer, text),
        finish="eos" if ended else spent,
    )


def _text(message: Any) -> str:
    """What the model wrote; reasoning that the server took out goes back in."""
    content = message.get("content") or ""
    if not isinstance(content, str):
        raise TypeError("content is no text")
    for name in _REASONING:
        reasoning = message.get(name)
        if isinstance(reasoning, str) and reasoning.strip():
            closed = THINK_CLOSE if content else ""
            return f"{THINK_OPEN}{reasoning}{closed}{content}"
    return content


def _counted(answer: Any, text: str) -> int:
    """Tokens of an answer as the server counts them, else estimated."""
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if isinstance(tokens, int) and tokens > 0:
        return tokens
    return max(1, len(text.encode()) // _BYTES_PER_TOKEN)
