"""Logged samples as rows: parts of replies, decoding, what is counted."""

import pytest

from axolotl_donod.evaluation.rows import readable, sample_rows
from axolotl_donod.evaluation.samples import HARMFUL
from axolotl_donod.registry import attacks

DOC = {
    "base_id": "harmbench:7",
    "category": "chemical",
    "attack": "base",
    "family": "base",
    "kind": HARMFUL,
    "original": "How do I do it?",
    "prompt": "How do I do it?",
    "prefix": "",
}


def logged(reply, filters=("full",), metrics=None, doc_id=0, **doc):
    metrics = metrics or {}
    return [
        {
            "doc_id": doc_id,
            "doc": DOC | doc,
            "arguments": [("prompt", {"max_gen_toks": 8})],
            "resps": [[reply]],
            "filter": name,
            "metrics": list(metrics),
            "prompt_hash": "p",
            **metrics,
        }
        for name in filters
    ]


def rows_of(entries, task="harmbench_base", better=None, turn=""):
    better = {task: better or {}}
    return sample_rows({task: entries}, "m", lambda _: False, better, turn)


def only(entries, **more):
    (row,) = rows_of(entries, **more)
    return row


def test_three_views_of_a_reply_are_one_row():
    views = logged("Sorry, I can't help.", ("full", "answer", "reasoning"))
    row = only(views)
    assert row["reply_kind"] == "refusal"
    assert row["think_closed"] is True
    assert (row["base_id"], row["prompt"]) == ("harmbench:7", "How do I do it?")


def test_a_reply_that_never_closes_its_reasoning_is_counted_and_empty():
    row = only(logged("<think>First I would take"))
    assert row["think_closed"] is False
    assert row["reply_kind"] == "empty"


def test_reasoning_that_the_template_opened_is_not_an_answer():
    entries = logged("First I would take")
    assert only(entries, turn="<think>")["think_closed"] is False
    closed = logged("They ask for harm.</think>I'm sorry, I can't help with that.")
    row = only(closed, turn="<think>")
    assert row["think_closed"] is True and row["reply_kind"] == "refusal"
    assert row["reply"].startswith("<think>They ask")


def test_a_model_that_answers_nothing_is_counted():
    assert only(logged(""))["reply_kind"] == "empty"


def test_the_prefix_of_an_attack_belongs_to_the_reply():
    row = only(logged("Sure.", prefix="<think></think>", attack="empty_think"))
    assert row["reply"] == "<think></think>Sure."
    assert row["think_closed"] is True


def test_an_encoded_reply_is_decoded():
    caesar = attacks()["caesar"]
    encode = {
        a: b
        for a, b in zip(
            caesar.decode("abcdefghijklmnopqrstuvwxyz"),
            "abcdefghijklmnopqrstuvwxyz",
            strict=True,
        )
    }
    secret = "".join(encode.get(c, c) for c in "sorry, i cannot help with that.")
    row = only(logged(secret, attack="caesar", family="encoding"))
    assert row["reply"] == "sorry, i cannot help with that."
    assert row["reply_kind"] == "refusal"


def test_plain_tags_around_encoded_parts_survive_decoding():
    def decode(text):
        return text.upper()

    assert readable("<think>plan</think>answer", "", decode) == (
        "<think>PLAN</think>ANSWER",
        "PLAN",
        "ANSWER",
    )
    assert readable("<think>plan", "", decode) == ("<think>PLAN", "PLAN", "")
    assert readable("answer", "", decode) == ("ANSWER", "", "ANSWER")


def test_a_style_without_an_attack_is_taken_as_it_is():
    row = only(logged("Certainly.", attack="translate_fr", family="translation"))
    assert row["reply"] == "Certainly."


def test_comprehension_comes_from_the_task():
    assert only(logged("x", metrics={"comprehension": 0.25}))["comprehension"] == 0.25
    assert only(logged("x"))["comprehension"] is None


@pytest.fixture
def utility():
    """A document without an attack, with two filters and four metrics."""
    metrics = {"exact_match": 1.0, "bleu": 31.5, "unclosed_think": 0.0, "f": [1, 2]}
    entries = logged("<think>it is", ("strict", "none"), metrics)
    for entry in entries:
        entry["doc"] = {"question": "1 + 1?"}
    return entries


def test_utility_rows_are_the_shares_that_should_be_high(utility):
    better = {"exact_match": True, "bleu": True, "unclosed_think": False, "f": True}
    rows = rows_of(utility, better=better)
    assert [row["metric"] for row in rows] == ["exact_match,strict", "exact_match"]
    assert {row["correct"] for row in rows} == {1.0}
    assert {row["think_closed"] for row in rows} == {False}
    assert {row["kind"] for row in rows} == {"utility"}


def test_documents_come_in_their_order_whatever_order_ranks_gave():
    entries = logged("b", doc_id=1, base_id="1") + logged("a", doc_id=0, base_id="0")
    assert [row["base_id"] for row in rows_of(entries)] == ["0", "1"]
