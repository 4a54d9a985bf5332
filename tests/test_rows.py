"""Rows are read, checked and batched alike, whatever holds them."""

import datasets
import numpy as np
import pyarrow as pa
import pytest

from axolotl_donod.errors import DataError
from axolotl_donod.pruning.rows import batches, measure, read, survey, token_arrays
from axolotl_donod.pruning.table import row_hash

ROWS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, -100, 8]},
    {"input_ids": [], "labels": []},
    {"input_ids": [3, 4], "labels": [-100, -100]},
    {"input_ids": [9], "labels": [9]},
    {"input_ids": [1, 2, 3], "labels": [1, 2, 3]},
    {"input_ids": [2, 9, 2, 2, 2], "labels": [-100, -100, -100, 1, 9]},
]


def as_int32(rows):
    feature = datasets.Sequence(datasets.Value("int32"))
    features = datasets.Features({"input_ids": feature, "labels": feature})
    return datasets.Dataset.from_list(rows, features=features)


def as_fixed_size(rows):
    """Only rows of one length fit; the others are not asked of it."""
    kind = pa.list_(pa.int64(), len(rows[0]["labels"]))
    names = ("input_ids", "labels")
    columns = {name: pa.array([row[name] for row in rows], kind) for name in names}
    return datasets.Dataset(pa.table(columns))


def sliced(rows):
    padding = [{"input_ids": [0] * 3, "labels": [0] * 3}] * 2
    whole = datasets.Dataset.from_list([*padding, *rows, *padding])
    part = whole.data.table.slice(2, len(rows))
    return datasets.Dataset(part)


def selected(rows):
    whole = datasets.Dataset.from_list([*reversed(rows), rows[0]])
    return whole.select(list(range(len(rows)))[::-1])


def chunked(rows):
    parts = [datasets.Dataset.from_list(rows[i : i + 2]) for i in range(0, 6, 2)]
    return datasets.concatenate_datasets(parts)


def with_text_and_torch(rows):
    kept = datasets.Dataset.from_list([{**row, "text": "x"} for row in rows])
    return kept.with_format("torch")


HOLDERS = [
    list,
    tuple,
    datasets.Dataset.from_list,
    as_int32,
    sliced,
    selected,
    chunked,
    with_text_and_torch,
]


def trained_by_hand(row):
    """Position and label of every trained token, as a plain loop finds them."""
    found = [
        (place - 1, label)
        for place, label in enumerate(row["labels"])
        if place and label != -100
    ]
    return [place for place, _ in found], [label for _, label in found]


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_survey_is_what_a_plain_loop_finds(hold):
    found = survey(hold(ROWS))
    expected = [row_hash(row["input_ids"], row["labels"]) for row in ROWS]
    assert found.hashes.tolist() == [value.encode() for value in expected]
    assert found.lengths.tolist() == [len(row["input_ids"]) for row in ROWS]
    assert found.counts.tolist() == [len(trained_by_hand(row)[0]) for row in ROWS]
    # Ids with the first row that holds them; labels where they are trained.
    assert found.extremes == {
        "input_ids": ((1, 4), (9, 3)),
        "labels": ((1, 5), (9, 5)),
    }


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_row_is_what_a_plain_loop_finds(hold):
    rows = hold(ROWS)
    for index, row in enumerate(ROWS):
        found = read(rows, index)
        positions, labels = trained_by_hand(row)
        assert found.index == index
        assert found.input_ids.tolist() == row["input_ids"]
        assert found.positions.tolist() == positions
        assert found.labels.tolist() == labels
        assert found.input_ids.dtype == found.labels.dtype == np.int64


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
def test_every_row_is_read_once_whatever_their_number(count):
    generator = np.random.default_rng(count)
    rows = [
        {"input_ids": ids, "labels": ids[::-1]}
        for size in generator.integers(0, 6, count)
        for ids in [generator.integers(0, 9, size).tolist()]
    ]
    shuffled = generator.permutation(count)
    dataset = datasets.Dataset.from_list(rows).select(shuffled)
    found = [(ids.tolist(), labels.tolist()) for ids, labels in token_arrays(dataset)]
    assert found == [(rows[i]["input_ids"], rows[i]["labels"]) for i in shuffled]


def test_lists_of_fixed_size_are_read():
    rows = [ROWS[0], {"input_ids": [1] * 4, "labels": [2] * 4}]
    for dataset in (as_fixed_size(rows), as_fixed_size(rows).select([1, 0])):
        found = survey(dataset)
        assert found.hashes.tolist() == survey(list(dataset)).hashes.tolist()


def test_rows_whose_labels_are_all_masked_have_no_trained_token():
    rows = [{"input_ids": [1, 2], "labels": [-100, -100]}] * 3
    for hold in (list, datasets.Dataset.from_list):
        assert survey(hold(rows)).counts.tolist() == [0, 0, 0]


@pytest.mark.parametrize("hold", [list, datasets.Dataset.from_list])
def test_no_rows_and_only_empty_rows_are_no_error(hold):
    assert survey(hold([])).hashes.size == 0
    lengths, counts = measure(hold([ROWS[1]] * 2), 1, 1)
    assert lengths.tolist() == counts.tolist() == [0, 0]


@pytest.mark.parametrize("hold", [list, datasets.Dataset.from_list])
@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input_ids": [1, 2], "labels": [1]}, r"row 2: .* one length, got .*\(2,\)"),
        ({"input_ids": [1], "labels": None}, "row 2: labels must be a list of int"),
        ({"input_ids": None, "labels": [1]}, "row 2: input_ids must be a list of int"),
        ({"input_ids": [1, None], "labels": [1, 1]}, "row 2: input_ids must be a list"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(hold, row, words):
    rows = hold([ROWS[0], ROWS[2], row, ROWS[4]])
    with pytest.raises(DataError, match=words):
        survey(rows)
    with pytest.raises(DataError, match=words):
        read(rows, 2)


@pytest.mark.parametrize("ids", [["a", "b"], [1.5, 2.0], [[1], [2, 3]]])
def test_what_is_no_token_is_refused(ids):
    for hold in (list, datasets.Dataset.from_list):
        with pytest.raises(DataError, match="row 0: input_ids must be a list of int"):
            survey(hold([{"input_ids": ids, "labels": [1, 2]}]))


@pytest.mark.parametrize("hold", [list, datasets.Dataset.from_list])
def test_a_missing_column_is_named(hold):
    rows = hold([{"input_ids": [1], "text": "x"}])
    with pytest.raises(DataError, match=r"row 0: column labels is missing, got \['in"):
        survey(rows)


def test_a_token_that_the_model_does_not_know_is_named_with_its_row():
    found = survey(ROWS)
    found.check_vocabulary(10, 10)
    with pytest.raises(DataError, match=r"row 3: input_ids holds 9, but .* 0 to 8 "):
        found.check_vocabulary(9, 10)
    with pytest.raises(DataError, match=r"row 5: labels holds 9, but .* 0 to 8 "):
        found.check_vocabulary(10, 9)
    masked = [ROWS[0], {"input_ids": [1, 2, 3], "labels": [-100, -1, -100]}]
    with pytest.raises(DataError, match="row 1: labels holds -1"):
        survey(masked).check_vocabulary(10, 10)


def test_joined_surveys_are_the_survey_of_all_rows():
    for cut in range(len(ROWS) + 1):
        joined = survey(ROWS[:cut]).joined(survey(ROWS[cut:]))
        whole = survey(ROWS)
        for name in ("hashes", "lengths", "counts"):
            expected = getattr(whole, name)
            np.testing.assert_array_equal(getattr(joined, name), expected)
        assert joined.extremes == whole.extremes


def batches_by_hand(lengths, wanted, budget):
    """Take the longest rows that are left, as many as fit when padded alike."""
    left = [i for i in range(len(lengths)) if wanted[i]]
    left.sort(key=lambda i: -lengths[i])
    while left:
        count = max(1, budget // lengths[left[0]])
        yield left[:count]
        left = left[count:]


def random_lengths(seed):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 40, generator.integers(0, 60))
    return lengths, generator.random(lengths.size) < 0.8, int(generator.integers(1, 99))


@pytest.mark.parametrize("seed", range(30))
def test_batches_hold_the_longest_rows_first_within_the_budget(seed):
    lengths, wanted, budget = random_lengths(seed)
    found = list(batches(lengths, wanted, budget))
    assert found == list(batches_by_hand(lengths.tolist(), wanted, budget))
    assert (
        sorted(index for batch in found for index in batch)
        == np.flatnonzero(wanted).tolist()
    )
    for batch in found:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= budget


@pytest.mark.parametrize("seed", range(30))
def test_leaving_out_whole_batches_changes_no_other_batch(seed):
    lengths, wanted, budget = random_lengths(seed)
    found = list(batches(lengths, wanted, budget))
    done = np.random.default_rng(seed).random(len(found)) < 0.5
    for batch, is_done in zip(found, done, strict=True):
        if is_done:
            wanted[batch] = False
    left = [batch for batch, is_done in zip(found, done, strict=True) if not is_done]
    assert list(batches(lengths, wanted, budget)) == left
