"""Our parts one by one in plain Axolotl runs, and the plugin without any of them."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from tests.runs import (
    LORA,
    PLUGIN,
    axolotl,
    base_config,
    chain_config,
    chat_rows,
    last_state,
    losses,
    pair_data,
    save,
    sft_data,
    write_jsonl,
)


def kept_of(folder):
    table = pq.read_table(folder / "out/donod/scores.parquet").to_pylist()
    return {row["row_hash"] for row in table if row["kept"]}


def test_without_our_sections_training_is_untouched(tmp_path, tiny_model_dir):
    histories, models = [], []
    for name, plugins in (("without", None), ("with", [PLUGIN])):
        folder = tmp_path / name
        folder.mkdir()
        config = base_config(folder, tiny_model_dir) | sft_data(folder)
        config |= {"plugins": plugins, "num_epochs": 1}
        axolotl("train", save(folder, config), cwd=folder)
        histories.append(last_state(folder / "out")["log_history"])
        models.append(load_file(folder / "out/model.safetensors"))
    assert len(losses(histories[0])) == 20
    assert losses(histories[0]) == losses(histories[1])
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name]), name


def test_donod_alone_with_packing_split_and_preprocess(tmp_path, tiny_model_dir):
    """`preprocess` scores; `train` reuses, prunes before packing, spares the split."""
    config = base_config(tmp_path, tiny_model_dir) | sft_data(tmp_path)
    config |= {
        "test_datasets": None,
        "val_set_size": 8,
        "sample_packing": True,
        "eval_sample_packing": False,
        "pad_to_sequence_len": True,
        "micro_batch_size": 1,
        "donod": {"keep_rows": 12, "preset": "paper"},
    }
    path = save(tmp_path, config)
    prepared = axolotl("preprocess", path, cwd=tmp_path).stdout
    assert "DONOD: scoring" in prepared
    manifest = json.loads((tmp_path / "out/donod/manifest.json").read_text())
    assert (manifest["rows"], manifest["kept"]) == (32, 12)
    assert manifest["learning_rate"] == 1e-3  # `paper` probes with the training rate
    kept = kept_of(tmp_path)

    trained = axolotl("train", path, cwd=tmp_path).stdout
    assert "reusing stored scores alone" in trained
    assert "DONOD: scoring" not in trained
    assert kept_of(tmp_path) == kept
    state = last_state(tmp_path / "out")
    # 12 short rows fill far fewer than the packs that 32 rows would.
    lengths = {
        row["row_hash"]: row["n_tokens"]
        for row in pq.read_table(tmp_path / "out/donod/scores.parquet").to_pylist()
    }
    assert manifest["kept_tokens"] == sum(lengths[name] for name in kept)
    seen = max(entry.get("tokens/trainable", 0) for entry in state["log_history"])
    assert seen == 2 * manifest["kept_tokens"]  # two epochs, every kept token


def test_a_new_budget_and_a_changed_row_need_the_score_of_that_row(
    tmp_path, tiny_model_dir
):
    config = base_config(tmp_path, tiny_model_dir) | sft_data(tmp_path)
    config |= {"num_epochs": 1, "eval_strategy": None, "test_datasets": None}
    donod = {"keep_fraction": 0.5, "audit": {"enabled": False}}
    path = save(tmp_path, config | {"donod": donod})
    assert "DONOD: scoring 40 rows" in axolotl("preprocess", path, cwd=tmp_path).stdout
    assert len(kept_of(tmp_path)) == 20
    rows = chat_rows(40)
    rows[7]["messages"][1]["content"] = "I do not know."
    config["datasets"][0]["path"] = write_jsonl(tmp_path / "other.jsonl", rows)
    changed = config | {"donod": donod | {"keep_fraction": 0.25}}
    output = axolotl("train", save(tmp_path, changed, "b.yml"), cwd=tmp_path).stdout
    assert "DONOD: scoring 1 rows" in output
    assert len(kept_of(tmp_path)) == 10


def test_aw_dpo_alone_in_a_plain_dpo_run(tmp_path, tiny_model_dir):
    config = base_config(tmp_path, tiny_model_dir) | pair_data(tmp_path) | LORA
    config |= {"rl": "dpo", "num_epochs": 1, "aw_dpo": {"mode": "joint"}}
    axolotl("train", save(tmp_path, config), cwd=tmp_path)
    state = last_state(tmp_path / "out")
    assert state["global_step"] == 8
    found = losses(state["log_history"])
    assert found[0] == pytest.approx(0.6931, abs=1e-4)  # ln 2 before any step
    assert found[-1] < found[0]


def test_preprocess_checks_the_alignment_pairs_too(tmp_path, tiny_model_dir):
    config = chain_config(tmp_path, tiny_model_dir)
    pairs = (tmp_path / "pairs.jsonl").read_text().splitlines()
    row = json.loads(pairs[3])
    row["chosen_harm_answer"] = 1.7
    pairs[3] = json.dumps(row)
    (tmp_path / "pairs.jsonl").write_text("\n".join(pairs))
    result = axolotl("preprocess", save(tmp_path, config), cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert "chosen_harm_answer" in result.stdout
    assert "1.7" in result.stdout
