import pytest
from datasets import Dataset

from axolotl_donod.aw_dpo.weights import (
    HARM_COLUMNS,
    drop_undecided,
    harm_gaps,
    segment_weights,
)
from axolotl_donod.errors import DataError

DEFAULT = (0.25, 0.75)


def row(chosen, rejected, full=(0.0, 1.0)):
    return {
        "chosen_harm_full": full[0],
        "chosen_harm_reasoning": chosen[0],
        "chosen_harm_answer": chosen[1],
        "rejected_harm_full": full[1],
        "rejected_harm_reasoning": rejected[0],
        "rejected_harm_answer": rejected[1],
    }


def weights(values, epsilon=0.05):
    return segment_weights(harm_gaps(values, "row 0"), epsilon, DEFAULT)


def test_weights_follow_the_harm_gaps():
    # d = (0.5, 0.25), so w = (0.55, 0.30) / 0.85.
    assert weights(row((0.25, 0.5), (0.75, 0.75))) == pytest.approx(
        (0.55 / 0.85, 0.30 / 0.85)
    )


def test_mixed_signs_stay_inside_the_unit_interval():
    # d = (0.5, -0.25): the worse segment keeps only the smoothing.
    assert weights(row((0.25, 0.5), (0.75, 0.25)), epsilon=0.1) == pytest.approx(
        (0.6 / 0.7, 0.1 / 0.7)
    )


def test_equal_gaps_share_equally():
    assert weights(row((0.0, 0.0), (1.0, 1.0))) == (0.5, 0.5)


def test_rows_without_scores_get_the_default_weights():
    assert weights({}) == DEFAULT
    assert weights(dict.fromkeys(HARM_COLUMNS)) == DEFAULT


@pytest.mark.parametrize("rejected", [(0.5, 0.5), (0.25, 0.5), (0.0, 0.0)])
def test_pairs_without_a_better_segment_have_no_weights(rejected):
    assert weights(row((0.5, 0.5), rejected)) is None


@pytest.mark.parametrize("column", HARM_COLUMNS)
@pytest.mark.parametrize("value", [None, float("nan"), -0.01, 1.01, "0.5"])
def test_unusable_scores_name_row_column_and_remedy(column, value):
    rows = [row((0.0, 0.0), (1.0, 1.0)) for _ in range(3)]
    rows[2][column] = value
    if value == "0.5":
        with pytest.raises(DataError, match=f"{column} must be a harmfulness"):
            weights(rows[2])
        return
    dataset = Dataset.from_list(rows)
    with pytest.raises(
        DataError, match=rf"row 2 of the train dataset as prepared: column {column}"
    ):
        drop_undecided(dataset)


def test_undecided_pairs_are_dropped_and_counted_and_order_is_kept():
    rows = [
        {"id": 0, **row((0.0, 0.0), (1.0, 1.0))},
        {"id": 1, **row((0.5, 0.5), (0.5, 0.1))},
        {"id": 2, **dict.fromkeys(HARM_COLUMNS)},
        {"id": 3, **row((0.5, 0.5), (0.4, 0.9))},
    ]
    kept, dropped = drop_undecided(Dataset.from_list(rows))
    assert dropped == 1
    assert kept["id"][:] == [0, 2, 3]


def test_data_without_score_columns_comes_back_unchanged():
    dataset = Dataset.from_list([{"prompt": "x"}])
    assert drop_undecided(dataset) == (dataset, 0)


def test_swapped_scores_are_an_error_and_not_an_empty_dataset():
    dataset = Dataset.from_list([row((1.0, 1.0), (0.0, 0.0))] * 2)
    with pytest.raises(DataError, match="in all 2 pairs"):
        drop_undecided(dataset, "eval")
