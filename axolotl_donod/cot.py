"""Preference rows with `<think>` reasoning in, prompt and raw completions out.

An Axolotl DPO dataset type: `type: axolotl_donod.cot_pairs`. Knows nothing of judges,
weights or losses; other columns of a row pass through.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from axolotl_donod.errors import DataError

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
_PROBE = "axolotlprobe"
_SEPARATE_REASONING = ("reasoning_content", "reasoning", "thinking")

Transform = Callable[..., dict[str, str]]


def cot_pairs(cfg: Any, dataset_idx: int = 0, **kwargs: Any) -> Transform:
    """Build the transform of a dataset whose responses are `<think>r</think>answer`.

    A row has `prompt`, a string (one user turn) or a list of messages, and `chosen` and
    `rejected`, each a string or one assistant message. The prompt goes through the
    chat template, of the dataset or else of the configuration; the responses are
    appended as they are, so that no template can strip or rewrite the reasoning. A
    response without any `<think>` is all answer.

    Args:
        cfg: Axolotl's configuration.
        dataset_idx: Position in its `datasets`.
        **kwargs: Ignored; Axolotl may pass more.

    Returns:
        A function of sample and tokenizer that gives the texts `prompt`, `chosen` and
        `rejected`. Responses end with the template's turn end, or with EOS where it
        has none. It raises DataError for a row that cannot be rendered, naming it by
        its text.
    """
    from axolotl.utils.chat_templates import (
        extract_chat_template_args,
        get_chat_template,
    )

    configured = cfg.get("datasets") or []
    dataset = configured[dataset_idx] if dataset_idx < len(configured) else None
    choice, jinja = extract_chat_template_args(cfg=cfg, ds_cfg=dataset)

    def transform_fn(sample: Mapping[str, Any], tokenizer: Any) -> dict[str, str]:
        template = get_chat_template(
            user_choice=choice, jinja_template=jinja, tokenizer=tokenizer
        )
        return render_pair(sample, tokenizer, template)

    return transform_fn


def render_pair(
    sample: Mapping[str, Any], tokenizer: Any, template: str
) -> dict[str, str]:
    """Texts of one preference row; see `cot_pairs`.

    Raises:
        DataError: A part is empty, the reasoning is not `<think>…</think>` once, or it
            is in a message field beside the content.
    """
    messages = _messages(sample.get("prompt"))
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, chat_template=template
    )
    lead, turn_end = _turn_frame(messages, prompt, tokenizer, template)
    rendered = {"prompt": _without_added_bos(prompt, tokenizer)}
    opened = prompt.rstrip().endswith(THINK_OPEN)
    for side in ("chosen", "rejected"):
        body = _content(sample.get(side), side)
        check_reasoning(body, side, opened=opened)
        if opened:
            body = _without_opening(body, prompt)
        rendered[side] = lead + _ended_once(body, turn_end, tokenizer.eos_token)
    return rendered


def check_reasoning(text: str, side: str, *, opened: bool = False) -> None:
    """Check that a response has no reasoning, or reasoning that closes once.

    Args:
        text: The response.
        side: Names the response in errors.
        opened: Whether the prompt already ends with `<think>`.

    Raises:
        DataError: Naming side, text, and remedy.
    """
    opens, closes = text.count(THINK_OPEN), text.count(THINK_CLOSE)
    if opens == closes == 0 and not opened:
        return
    if opens == 1 and closes == 1:
        before = text[: text.index(THINK_OPEN)]
        if THINK_CLOSE not in before and not (opened and before.strip()):
            return
    if opens == 0 and closes == 1 and opened:
        return
    raise DataError(
        f"{side} has {opens} {THINK_OPEN} and {closes} {THINK_CLOSE}"
        f"{', and the chat template opens one more' if opened and not opens else ''}; "
        "a response has one <think>reasoning</think> before its answer, or no tag. "
        f"Repair or remove the row: {_shown(text)}"
    )


def _messages(prompt: Any) -> list[dict[str, Any]]:
    if isinstance(prompt, str) and prompt.strip():
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, Sequence) and not isinstance(prompt, str) and prompt:
        # A column of messages pads absent fields with None, which templates print.
        return [
            {key: value for key, value in message.items() if value is not None}
            for message in prompt
        ]
    raise DataError(
        "prompt must be a text or a list of messages and not empty, got "
        f"{_shown(prompt)}; fill it in or remove the row"
    )


def _content(response: Any, side: str) -> str:
    if isinstance(response, Sequence) and not isinstance(response, str):
        if len(response) != 1:
            raise DataError(
                f"{side} must be a text or one assistant message, got {len(response)} "
                f"messages; move the earlier ones to prompt: {_shown(response)}"
            )
        response = response[0]
    if isinstance(response, Mapping):
        for name in _SEPARATE_REASONING:
            if response.get(name):
                raise DataError(
                    f"{side} keeps its reasoning in the field {name}; write it into "
                    f"the content as <think>…</think>: {_shown(response)}"
                )
        response = response.get("content")
    if not isinstance(response, str) or not response.strip():
        raise DataError(
            f"{side} must be a text and not empty, got {_shown(response)}; fill it in "
            "or remove the row"
        )
    return response


def _turn_frame(
    messages: list[dict[str, Any]], prompt: str, tokenizer: Any, template: str
) -> tuple[str, str]:
    """White space and turn end that the template puts around a response."""
    answered = [*messages, {"role": "assistant", "content": _PROBE}]
    full = tokenizer.apply_chat_template(
        answered, tokenize=False, chat_template=template
    )
    before, found, after = full.rpartition(_PROBE)
    if not found:
        return "", tokenizer.eos_token
    lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
    return ("" if lead.strip() else lead), after.strip() or tokenizer.eos_token


def _ended_once(body: str, turn_end: str, eos: str) -> str:
    body = body.rstrip()
    while body.endswith((turn_end, eos)):
        ending = turn_end if body.endswith(turn_end) else eos
        body = body.removesuffix(ending).rstrip()
    return body + turn_end


def _without_opening(body: str, prompt: str) -> str:
    """Drop the `<think>` that the prompt already has, and the white space after it."""
    stripped = body.lstrip()
    if not stripped.startswith(THINK_OPEN):
        return body
    rest = stripped.removeprefix(THINK_OPEN)
    return rest.lstrip("\n") if prompt.endswith("\n") else rest


def _without_added_bos(prompt: str, tokenizer: Any) -> str:
    """Leave BOS to tokenizers that add it to any text."""
    bos = tokenizer.bos_token
    if not bos or not prompt.startswith(bos):
        return prompt
    with_special = tokenizer(_PROBE)["input_ids"]
    bare = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    adds_bos = with_special[:1] == [tokenizer.bos_token_id] and with_special != bare
    return prompt.removeprefix(bos) if adds_bos else prompt


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
