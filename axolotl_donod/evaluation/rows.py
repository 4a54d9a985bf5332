"""Logged samples as rows: takes what lm-eval logs of a run, gives the table's rows.

A document that says which `attack` was put on which `original` prompt is one of safety;
any other is one of utility. Encoded replies are decoded here. Knows nothing of models
or judges.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from axolotl_donod.evaluation.samples import BASE, UTILITY
from axolotl_donod.judges.replies import reply_kind
from axolotl_donod.registry import attacks
from axolotl_donod.think import THINK_CLOSE, THINK_OPEN, split_response

Truncated = Callable[[Sequence[Any]], bool]
Better = Mapping[str, bool | None]
Decode = Callable[[str], str]
_SAFETY = frozenset({"base_id", "category", "kind", "attack", "family", "original"})
_NO_FILTER = "none"
_COMPREHENSION = "comprehension"
# Statistics of lm-eval that say how a reply looks, not whether it is right.
_NO_UTILITY = frozenset({"bypass"})


def sample_rows(
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    model: str,
    truncated: Truncated,
    higher_is_better: Mapping[str, Better],
    turn: str = "",
) -> list[dict[str, Any]]:
    """Return the rows of a run, tasks by name and documents in their order.

    Args:
        samples: What lm-eval logged, by task; one entry per document and filter.
        model: Name of the model in reports.
        truncated: Tells of a request whether its reply ran into the limit of tokens.
        higher_is_better: By task and metric; metrics that are not are left out.
        turn: What the chat template begins the model's turn with, if it is `<think>`.
    """
    rows: list[dict[str, Any]] = []
    for task in sorted(samples):
        for views in _documents(samples[task]):
            first = views[0]
            shared = {"model": model, "task": task, "prompt_hash": first["prompt_hash"]}
            if _is_attacked(first["doc"]):
                rows.append(shared | _safety(views, truncated, turn))
            else:
                better = higher_is_better.get(task, {})
                found = _utility(views, truncated, better, turn)
                rows += [shared | row for row in found]
    return rows


def readable(
    reply: str, begun: str = "", decode: Decode | None = None
) -> tuple[str, str, str]:
    """Return a reply as a judge reads it: whole, its reasoning, its answer.

    Args:
        reply: What the model wrote.
        begun: What its turn began with, before it wrote.
        decode: Makes an encoded reply readable; the two parts each for itself where
            its tags are plain text.
    """
    whole = _begun(begun, reply)
    if decode is None:
        return whole, *split_response(whole)
    if THINK_CLOSE not in whole and THINK_OPEN not in whole:
        decoded = decode(whole)
        return decoded, *split_response(decoded)
    reasoning, answer = (decode(part) for part in split_response(whole))
    closed = THINK_CLOSE if THINK_CLOSE in whole else ""
    return f"{THINK_OPEN}{reasoning}{closed}{answer}", reasoning, answer


def _documents(
    logged: Sequence[Mapping[str, Any]],
) -> Iterator[list[Mapping[str, Any]]]:
    """Entries of each document, one per filter, in the order of the documents."""
    grouped: dict[int, list[Mapping[str, Any]]] = {}
    for entry in logged:
        grouped.setdefault(int(entry["doc_id"]), []).append(entry)
    for number in sorted(grouped):
        yield grouped[number]


def _is_attacked(doc: Any) -> bool:
    return isinstance(doc, Mapping) and doc.keys() >= _SAFETY


def _safety(
    views: Sequence[Mapping[str, Any]], truncated: Truncated, turn: str
) -> dict[str, Any]:
    first = views[0]
    doc = first["doc"]
    # A style that comes written has no attack, and nothing to decode.
    attack = attacks().get(doc["attack"])
    decode = attack.decode if attack else None
    whole, _, answer = readable(_reply(first), doc.get("prefix") or turn, decode)
    found = [view[_COMPREHENSION] for view in views if _COMPREHENSION in view]
    return {
        "base_id": str(doc["base_id"]),
        "category": str(doc["category"]),
        "attack": doc["attack"],
        "family": doc["family"],
        "kind": doc["kind"],
        "truncated": truncated(_arguments(first)),
        "think_closed": _closed(whole),
        "reply_kind": reply_kind(answer),
        "comprehension": _number(found[0]) if found else None,
        "prompt": doc["original"] or doc["prompt"],
        "reply": whole,
    }


def _utility(
    views: Sequence[Mapping[str, Any]],
    truncated: Truncated,
    better: Better,
    turn: str,
) -> Iterator[dict[str, Any]]:
    first = views[0]
    doc = first["doc"] if isinstance(first["doc"], Mapping) else {}
    generates = _generates(first)
    row = {
        "base_id": str(doc.get("base_id", first["doc_id"])),
        "category": str(doc.get("category") or doc.get("subject") or "none"),
        "attack": BASE,
        "family": UTILITY,
        "kind": UTILITY,
        "truncated": generates and truncated(_arguments(first)),
        "think_closed": not generates or _closed(_begun(turn, _reply(first))),
        "reply": _reply(first) if generates else None,
    }
    for view in views:
        for metric in view["metrics"]:
            value = _number(view[metric])
            wanted = better.get(metric) is not False and metric not in _NO_UTILITY
            if wanted and value is not None and 0 <= value <= 1:
                name = view["filter"]
                label = metric if name == _NO_FILTER else f"{metric},{name}"
                yield row | {"metric": label, "correct": value}


def _arguments(entry: Mapping[str, Any]) -> Sequence[Any]:
    arguments: Sequence[Any] = entry["arguments"][0]
    return arguments


def _generates(entry: Mapping[str, Any]) -> bool:
    arguments = _arguments(entry)
    return len(arguments) > 1 and isinstance(arguments[1], Mapping)


def _reply(entry: Mapping[str, Any]) -> str:
    return str(entry["resps"][0][0])


def _begun(turn: str, reply: str) -> str:
    return reply if reply.startswith(turn) else turn + reply


def _closed(text: str) -> bool:
    return THINK_CLOSE in text or THINK_OPEN not in text


def _number(value: Any) -> float | None:
    """Read a number as lm-eval logs it; lists and texts are none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
