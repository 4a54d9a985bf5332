"""The judge `classifier` on random tiny models, against scores worked out apart."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from axolotl_donod.errors import ConfigError
from axolotl_donod.judges.cache import judged
from axolotl_donod.judges.classifier import ClassifierJudge, ClassifierOptions
from axolotl_donod.judges.judge import JudgeItem
from tests.tiny import tiny_tokenizer

NAMES = ("safe", "mild", "unsafe")
WEIGHTS = {"safe": 0.0, "mild": 0.5, "unsafe": 1.0}


def save(folder, names=NAMES, causal=False, **settings):
    """A classifier with random weights, large enough that scores differ."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.5,
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "pad_token_id": None if causal else 0,
    }
    config = (LlamaConfig if causal else BertConfig)(**shape | settings)
    kind = LlamaForSequenceClassification if causal else BertForSequenceClassification
    kind(config).eval().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("classifier"))


def judge(folder, labels=WEIGHTS, **options):
    return ClassifierJudge(
        ClassifierOptions(model=str(folder), labels=labels, **options)
    )


ITEMS = [
    JudgeItem.of_response(f"prompt {i}", f"<think>{'r' * i}</think>answer {i * 'b '}")
    for i in range(7)
]


def logits(folder, text):
    """Logits of one text alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = tiny_tokenizer()(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(ids, attention_mask=torch.ones_like(ids)).logits[0]


def text_of(item, part):
    return f"{item.prompt}\n\n{getattr(item, part)}"


@pytest.mark.parametrize("causal", [False, True], ids=["bert", "llama"])
def test_scores_are_the_mean_weight_of_the_labels(tmp_path, causal):
    folder = save(tmp_path / "m", causal=causal)
    found = list(judge(folder, batch_size=4).judge(ITEMS))
    for item, verdict in zip(ITEMS, found, strict=True):
        for part in ("full", "reasoning", "answer"):
            if not getattr(item, part):
                assert getattr(verdict, part) is None
                continue
            shares = logits(folder, text_of(item, part)).softmax(0)
            expected = float(0.5 * shares[1] + shares[2])
            assert getattr(verdict, part) == pytest.approx(expected, abs=1e-5)
    assert len({round(v.full, 4) for v in found}) > 3
    best = logits(folder, text_of(ITEMS[0], "full")).softmax(0)
    assert found[0].reason == f"{NAMES[int(best.argmax())]} {float(best.max()):.3f}"


@pytest.mark.parametrize("weight", [1.0, 0.0, 0.25])
def test_one_logit_is_the_log_odds_of_its_label(tmp_path, weight):
    folder = save(tmp_path / "m", names=("harm",))
    (found,) = judge(folder, {"harm": weight}).judge(ITEMS[:1])
    chance = float(logits(folder, text_of(ITEMS[0], "full")).sigmoid())
    expected = weight * chance + (1 - weight) * (1 - chance)
    assert found.full == pytest.approx(expected, abs=1e-5)


def test_labels_on_their_own_give_the_greatest(tmp_path):
    folder = save(tmp_path / "m", problem_type="multi_label_classification")
    shares = logits(folder, text_of(ITEMS[1], "answer")).sigmoid()
    expected = float(max(0.5 * shares[1], shares[2]))
    for options in ({}, {"activation": "sigmoid"}):
        found = list(judge(folder, **options).judge(ITEMS[:2]))
        assert found[1].answer == pytest.approx(expected, abs=1e-5)
    (soft,) = judge(folder, activation="softmax").judge(ITEMS[1:2])
    assert soft.answer != pytest.approx(expected, abs=1e-3)


def test_batches_change_nothing(model):
    one, many = (list(judge(model, batch_size=n).judge(ITEMS)) for n in (1, 64))
    for a, b in zip(one, many, strict=True):
        assert a.full == pytest.approx(b.full, abs=1e-5)
        assert a.judge == b.judge


@pytest.mark.parametrize(
    "labels",
    [{"safe": 0, "unsafe": 1}, {"safe": 0, "mild": 0, "unsafe": 1, "evil": 1}],
    ids=["one missing", "one unknown"],
)
def test_labels_that_the_model_has_not_are_named(model, labels):
    with pytest.raises(ConfigError) as refused:
        list(judge(model, labels).judge(ITEMS))
    message = str(refused.value)
    assert "judge.labels must name every label" in message
    assert "safe, mild, unsafe" in message and ", ".join(labels) in message


def test_long_and_odd_texts_are_judged(model, tmp_path):
    odd = [
        "x" * 100_000,
        "\x00\x1b[31m",
        "\ud800",
        "\u4f60\u597d",
        "{prompt} {response} {0}",
    ]
    items = [JudgeItem(text, text, "", text) for text in odd]
    found = judged(judge(model), items, tmp_path / "v.jsonl", progress=False)
    assert all(0 <= v.full <= 1 and v.failure is None for v in found)


def test_of_a_long_text_the_end_counts(model):
    def score(prompt, answer):
        rows = [JudgeItem(prompt, answer, "", answer)]
        (found,) = judge(model, max_length=32).judge(rows)
        return found.answer

    ending = " He starts with 12 and adds 30, which makes 42." * 3
    assert score("a" * 900, ending) == score("b" * 900, ending)
    assert score("a" * 900, ending) != score("a" * 900, f"{ending} No.")


def test_a_template_may_leave_the_prompt_out(model):
    items = [JudgeItem("one", "a", "", "a"), JudgeItem("two", "a", "", "a")]
    one, two = judge(model, template="{response}").judge(items)
    assert one.full == two.full
    one, two = judge(model, template="{prompt} {response}").judge(items)
    assert one.full != two.full


def test_the_id_follows_settings_and_weights(model, tmp_path):
    again = judge(model, batch_size=3, device="cpu")
    assert judge(model).id == again.id
    assert judge(model).id.startswith(f"classifier 1: {model} (")
    ids = {
        judge(model).id,
        judge(model, WEIGHTS | {"mild": 0.4}).id,
        judge(model, template="{response}").id,
        judge(model, max_length=64).id,
    }
    assert len(ids) == 4
    folder = save(tmp_path / "m")
    before = judge(folder).id
    other = AutoModelForSequenceClassification.from_pretrained(folder)
    other.classifier.bias.data += 1
    other.save_pretrained(folder)
    assert judge(folder).id != before


def test_a_device_that_is_not_there_is_named(model):
    with pytest.raises(ConfigError, match="cannot be loaded on cuda:77"):
        list(judge(model, device="cuda:77").judge(ITEMS))
