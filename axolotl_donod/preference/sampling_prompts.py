"""Prompts on their way to a sampler: their content's key, and their token ids.

Takes prompts, gives those that can be sampled and why the others cannot. Knows nothing
of how answers are drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from axolotl_donod.cot import opens_reasoning
from axolotl_donod.cot_messages import shown
from axolotl_donod.errors import ConfigError
from axolotl_donod.files import json_hash
from axolotl_donod.preference.sampling_config import SamplingConfig
from axolotl_donod.preference.sampling_texts import special_ids
from axolotl_donod.think import THINK_OPEN

EMPTY, TOO_LONG, NOT_UNICODE = "empty", "too long", "not Unicode"
# What text cannot be part of any prompt, and so stands for an answer.
_PROBE = "donod-answer-probe"
_BYTES_PER_TOKEN = 4

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """One prompt to sample answers for.

    Attributes:
        id: Names it in errors and in samples.
        text: What the user asks.
        source: Data set that it comes from.
        kind: Whether refusing it is right.
        messages: The turns that it is the end of, itself included; None where the
            text is all there is.
    """

    id: str
    text: str
    source: str = ""
    kind: Literal["harmful", "benign"] = "harmful"
    messages: tuple[Message, ...] | None = None

    def turns(self, system: str | None = None) -> list[dict[str, Any]]:
        """The messages before the answer, a system message first if there is one."""
        given = self.messages or ({"role": "user", "content": self.text},)
        turns = [dict(message) for message in given]
        if system is not None and turns[0].get("role") != "system":
            turns.insert(0, {"role": "system", "content": system})
        return turns


@dataclass(frozen=True)
class Refused:
    """A prompt that is not sampled, and why: `reason` to count, `detail` to read."""

    prompt: Prompt
    reason: str
    detail: str


@dataclass(frozen=True)
class Query:
    """A prompt as a sampler takes it.

    Attributes:
        key: 32 digits that name the turns.
        turns: The messages before the answer.
        ids: Token ids of the rendered prompt, empty for a server.
        opening: How the answer begins before the first sampled token.
    """

    key: str
    turns: list[dict[str, Any]]
    ids: list[int]
    opening: str

    def shown(self) -> str:
        """The prompt as errors quote it."""
        return shown(self.turns[-1].get("content"))


Encode = Callable[[list[dict[str, Any]]], tuple[list[int], str]]


def queries(
    prompts: Sequence[Prompt], config: SamplingConfig, encode: Encode | None
) -> tuple[dict[str, Query], list[Refused]]:
    """Prepare prompts; equal ones become one query.

    Args:
        prompts: In any order.
        config: Gives system message and length limit.
        encode: Gives ids and opening of turns, from `encoder`; None for a server.

    Returns:
        Queries by prompt id, and the prompts that are left out.
    """
    by_key: dict[str, Query] = {}
    found: dict[str, Query] = {}
    refused: list[Refused] = []
    for prompt in prompts:
        if prompt.id in found:
            raise ConfigError(
                f"two prompts have the id {prompt.id!r}; give every prompt its own"
            )
        turns = prompt.turns(config.system)
        reason = _unusable(turns)
        if reason:
            refused.append(Refused(prompt, reason, f"prompt {prompt.id}: {reason}"))
            continue
        key = json_hash({"turns": turns})
        query = by_key.get(key)
        if query is None:
            ids, opening = encode(turns) if encode else ([], config.prefix)
            query = by_key[key] = Query(key, turns, ids, opening)
        length = len(query.ids) if encode else _estimated_tokens(turns)
        if length > config.max_prompt_tokens:
            limit = f"max_prompt_tokens is {config.max_prompt_tokens}"
            said = f"prompt {prompt.id} has {length} tokens, {limit}"
            refused.append(Refused(prompt, TOO_LONG, said))
            continue
        found[prompt.id] = query
    return found, refused


def encoder(tokenizer: Any, prefix: str) -> Encode:
    """Give a function that renders turns by the chat template, up to the answer.

    Where the template itself opens `<think>`, a prefix of `<think>` adds nothing. The
    opening holds the tag in either case, so that an answer has both its tags.

    Raises:
        ConfigError: The tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            "sampling needs the tokenizer's chat template to render prompts, and it "
            "has none; set chat_template in the config"
        )

    def encode(turns: list[dict[str, Any]]) -> tuple[list[int], str]:
        text = _rendered(tokenizer, turns, add_generation_prompt=True)
        opening = ""
        if opens_reasoning(text):
            opening = text[text.rindex(THINK_OPEN) :]
        if not (opening and prefix.strip() == THINK_OPEN):
            text, opening = text + prefix, opening + prefix
        return tokenizer(text, add_special_tokens=False)["input_ids"], opening

    return encode


def stop_ids(tokenizer: Any, further: Sequence[str] = ()) -> set[int]:
    """Ids of the tokens that end an answer.

    These are EOS, what the chat template ends an assistant's turn with if that is a
    special token, and `further` ones.

    Raises:
        ConfigError: One of `further` is no token of this tokenizer.
    """
    ends = {tokenizer.eos_token_id} - {None}
    asked = {"role": "user", "content": _PROBE.upper()}
    answered = [asked, {"role": "assistant", "content": _PROBE}]
    text = _rendered(tokenizer, answered, add_generation_prompt=False)
    after = text.rpartition(_PROBE)[2].strip()
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    ends |= set(ids[:1]) & special_ids(tokenizer)
    known = tokenizer.get_vocab()
    for token in further:
        if token not in known:
            raise ConfigError(
                f"sampling.stop_tokens: {token!r} is not one token of this tokenizer; "
                "name a token of its vocabulary"
            )
        ends.add(known[token])
    return ends


def _rendered(tokenizer: Any, turns: list[dict[str, Any]], **options: bool) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(turns, tokenize=False, **options)
    except TemplateError as error:
        roles = ", ".join(str(turn.get("role")) for turn in turns)
        raise ConfigError(
            f"the chat template refuses messages of the roles {roles}: {error}; remove "
            "sampling.system or set another chat_template"
        ) from error
    return text


def _unusable(turns: list[dict[str, Any]]) -> str | None:
    """Why turns cannot be sampled, None where they can."""
    content = str(turns[-1].get("content") or "")
    if not content.strip():
        return EMPTY
    try:
        "".join(str(turn.get("content")) for turn in turns).encode()
    except UnicodeEncodeError:
        return NOT_UNICODE
    return None


def _estimated_tokens(turns: list[dict[str, Any]]) -> int:
    size = sum(len(str(turn.get("content")).encode()) for turn in turns)
    return size // _BYTES_PER_TOKEN
