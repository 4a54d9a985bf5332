"""Each built-in corruption on answers of many shapes: worse, different, repeatable."""

import random
import re
from collections import Counter

import pytest

from axolotl_donod.pruning.audit.corruptions import (
    Corruption,
    other_answer,
    refusal,
    register_corruptions,
    scrambled,
    shuffled,
    truncated,
    wrong_numbers,
)

SOLUTION = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "She sold 48+24 = <<48+24=72>>72 clips altogether.\n#### 72"
)
PROSE = (
    "The heart pumps blood through the body. It beats about once a second, and every "
    "beat sends blood to the lungs or to the other organs, which need its oxygen."
)
CHINESE = "答案是四十二。因为他先有十二个苹果。后来又买了三十个。"
THAI = "คำตอบคือสี่สิบสองเพราะเขามีแอปเปิลสิบสองผล"
ARABIC = "الجواب هو ٤٢ لأن لديه ١٢ تفاحة ثم اشترى ٣٠ تفاحة"
TEXTS = [
    SOLUTION,
    PROSE,
    CHINESE,
    THAI,
    ARABIC,
    "42",
    "Yes",
    "A B",
    "so so so",
    "Привет, мир!",
    "```python\nprint(1)\n```",
    "🙂 🙃",
]
KINDS = register_corruptions()


def numbers(text):
    return re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("text", TEXTS)
def test_differs_from_the_answer_and_repeats_from_the_seed(kind: Corruption, text):
    for seed in range(20):
        spoiled = kind.corrupt(text, TEXTS, random.Random(seed))
        assert spoiled == kind.corrupt(text, TEXTS, random.Random(seed))
        assert spoiled is None or (spoiled != text and spoiled.strip())


def test_names_are_those_of_the_documentation():
    assert [kind.name for kind in KINDS] == [
        "shuffled",
        "truncated",
        "wrong_numbers",
        "scrambled",
        "other_answer",
        "refusal",
    ]


@pytest.mark.parametrize("seed", range(10))
def test_shuffled_takes_an_answer_of_like_length(seed):
    pool = [" ".join(["word"] * n) + f" {n}" for n in range(1, 60)]
    answer = " ".join(["own"] * 30)
    taken = len(shuffled(answer, pool, random.Random(seed)).split())
    assert 24 <= taken <= 36


def test_shuffled_takes_the_nearest_where_none_is_of_like_length():
    pool = ["one", "one two three four five six", "own answer " * 50]
    answer = "own answer " * 50
    assert shuffled(answer, pool, random.Random(0)) == pool[1]


def test_other_answer_takes_answers_of_any_length():
    pool = ["short", "a much longer answer than the others", "", "own"]
    taken = {other_answer("own", pool, random.Random(seed)) for seed in range(50)}
    assert taken == set(pool[:2])


@pytest.mark.parametrize("kind", [shuffled, other_answer])
@pytest.mark.parametrize("pool", [[], ["own"], [" own\n", "", "  "]])
def test_another_answer_cannot_be_taken_where_there_is_none(kind, pool):
    assert kind("own", pool, random.Random(0)) is None


@pytest.mark.parametrize("text", [SOLUTION, PROSE, ARABIC])
def test_truncated_ends_on_a_word_in_the_middle(text):
    shares = set()
    for seed in range(200):
        cut = truncated(text, [], random.Random(seed))
        assert text.startswith(cut)
        assert text[len(cut)].isspace()
        shares.add(len(cut.split()) / len(text.split()))
    assert 0.25 < min(shares) < 0.4
    assert 0.6 < max(shares) < 0.75


@pytest.mark.parametrize("text", [CHINESE, THAI])
def test_scripts_without_spaces_are_cut_and_scrambled_by_character(text):
    cut = truncated(text, [], random.Random(0))
    assert 0.25 * len(text) < len(cut) < 0.75 * len(text)
    assert Counter(scrambled(text, [], random.Random(0))) == Counter(text)


@pytest.mark.parametrize("text", ["42", "Yes", ""])
def test_one_word_is_neither_cut_nor_scrambled(text):
    assert truncated(text, [], random.Random(0)) is None
    assert scrambled(text, [], random.Random(0)) is None


@pytest.mark.parametrize("text", [SOLUTION, PROSE, ARABIC])
def test_scrambled_keeps_words_and_spaces(text):
    mixed = scrambled(text, [], random.Random(3))
    assert Counter(mixed.split()) == Counter(text.split())
    assert re.findall(r"\s+", mixed) == re.findall(r"\s+", text)


def test_scrambled_swaps_two_words_whatever_the_seed():
    assert {scrambled("A B", [], random.Random(s)) for s in range(20)} == {"B A"}


def test_scrambled_cannot_apply_to_one_word_said_again():
    assert scrambled("so so so", [], random.Random(0)) is None


@pytest.mark.parametrize("seed", range(50))
def test_the_final_number_is_always_wrong_and_wrong_everywhere(seed):
    wrong = wrong_numbers(SOLUTION, [], random.Random(seed))
    assert "72" not in numbers(wrong)
    final = numbers(wrong)[-1]
    assert numbers(wrong).count(final) >= numbers(SOLUTION).count("72")
    assert re.sub(r"\d", "", wrong) == re.sub(r"\d", "", SOLUTION)


def test_other_numbers_are_sometimes_wrong_too():
    texts = [wrong_numbers(SOLUTION, [], random.Random(s)) for s in range(100)]
    changed = sum("48" not in numbers(text) for text in texts)
    # Binomial(100, 0.3): five standard deviations each way.
    assert 8 < changed < 53


@pytest.mark.parametrize(
    "number", ["0", "1", "9", "10", "99", "100", "1,234,567.89", "0.05", "1999", "007"]
)
def test_a_wrong_number_has_the_same_magnitude_and_form(number):
    for seed in range(200):
        wrong = wrong_numbers(number, [], random.Random(seed))
        assert wrong != number
        assert re.sub(r"\d", "d", wrong) == re.sub(r"\d", "d", number)
        right, found = (float(text.replace(",", "")) for text in (number, wrong))
        unit = 10 ** -len(number.partition(".")[2])
        assert abs(found - right) <= max(3 * unit, 0.2 * right) + 1e-9
        assert len(str(int(found))) == len(str(int(right))) or right < 10


def test_digits_stay_in_their_script():
    wrong = wrong_numbers(ARABIC, [], random.Random(0))
    assert wrong != ARABIC
    assert not re.search(r"[0-9]", wrong)


@pytest.mark.parametrize(
    "text", [PROSE, "1. Eat well\n2. Sleep\n3) Rest", "Use x2 and utf_8 here", ""]
)
def test_texts_without_numbers_have_no_wrong_ones(text):
    assert wrong_numbers(text, [], random.Random(0)) is None


def test_markers_of_a_list_keep_their_order():
    wrong = wrong_numbers("1. Eat 3 apples\n2. Sleep 8 hours", [], random.Random(0))
    assert re.fullmatch(r"1\. Eat \d apples\n2\. Sleep [^8] hours", wrong)


def test_numbers_of_any_length_are_changed():
    digits = "31415926535897932384" * 400
    wrong = wrong_numbers(digits, [], random.Random(0))
    assert wrong != digits and len(wrong) == len(digits)


def test_refusals_vary_and_never_repeat_the_answer():
    texts = {refusal("x", [], random.Random(seed)) for seed in range(300)}
    assert len(texts) == 12
    for text in texts:
        again = {refusal(f" {text}\n", [], random.Random(s)) for s in range(100)}
        assert text not in again
