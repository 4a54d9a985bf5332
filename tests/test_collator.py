import pytest
import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

from axolotl_donod.aw_dpo.collator import AwDpoCollator

ROWS = [
    {
        "prompt": "text columns stay behind",
        "prompt_ids": [1, 2, 3],
        "chosen_ids": [4, 5, 6],
        "rejected_ids": [7],
        "chosen_reasoning_len": 2,
        "rejected_reasoning_len": 0,
        "segment_weights": [0.25, 0.75],
    },
    {
        "prompt": "",
        "prompt_ids": [1],
        "chosen_ids": [8, 9],
        "rejected_ids": [10, 11],
        "chosen_reasoning_len": 1,
        "rejected_reasoning_len": 5,
        "segment_weights": [0.5, 0.5],
    },
]


def test_stock_tensors_are_the_stock_collators():
    ours = AwDpoCollator(pad_token_id=0, max_length=5)(ROWS)
    stock = DataCollatorForPreference(pad_token_id=0, max_length=5)(ROWS)
    assert set(ours) == {*stock, "reasoning_len", "segment_weights"}
    assert all(torch.equal(ours[name], stock[name]) for name in stock)


def test_lengths_come_chosen_first_and_weights_per_pair():
    batch = AwDpoCollator(pad_token_id=0)(ROWS)
    assert batch["reasoning_len"].tolist() == [2, 1, 0, 5]
    assert batch["segment_weights"].tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert batch["segment_weights"].dtype == torch.float32


@pytest.mark.parametrize("multiple", [4, 16])
def test_batches_are_padded_to_the_multiple(multiple):
    batch = AwDpoCollator(pad_token_id=9, pad_to_multiple_of=multiple)(ROWS)
    width = -(-6 // multiple) * multiple
    for name in ("input_ids", "attention_mask", "completion_mask"):
        assert batch[name].shape == (4, width)
    assert batch["input_ids"][0, 6:].tolist() == [9] * (width - 6)


def test_precomputed_reference_logps_keep_their_segments():
    rows = [
        {**row, "ref_chosen_logps": [-1.0, -2.0], "ref_rejected_logps": [-3.0, -4.0]}
        for row in ROWS
    ]
    batch = AwDpoCollator(pad_token_id=0)(rows)
    assert batch["ref_chosen_logps"].tolist() == [[-1.0, -2.0]] * 2
    assert batch["ref_rejected_logps"].tolist() == [[-3.0, -4.0]] * 2
