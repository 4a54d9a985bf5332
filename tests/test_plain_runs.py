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
        axolotl("train", save(folder, config | {"plugins": plugins}), cwd=folder)
        histories.append(last_state(folder / "out")["log_history"])
        models.append(load_file(folder / "out/model.safetensors"))
    assert len(losses(histories[0])) == 40
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


def test_a_new_budget_needs_no_new_scores(tmp_path, tiny_model_dir):
    config = base_config(tmp_path, tiny_model_dir) | sft_data(tmp_path)
    config |= {"num_epochs": 1, "eval_strategy": None, "test_datasets": None}
    first = save(tmp_path, config | {"donod": {"keep_fraction": 0.5}})
    assert "DONOD: scoring" in axolotl("train", first, cwd=tmp_path).stdout
    half = kept_of(tmp_path)
    second = save(tmp_path, config | {"donod": {"keep_fraction": 0.25}}, "b.yml")
    output = axolotl("train", second, cwd=tmp_path).stdout
    assert "reusing stored scores alone" in output
    assert "DONOD: scoring" not in output
    assert len(kept_of(tmp_path)) == 10
    assert kept_of(tmp_path) < half


def test_changed_rows_are_scored_again_and_no_others(tmp_path, tiny_model_dir):
    config = base_config(tmp_path, tiny_model_dir) | sft_data(tmp_path)
    config |= {"num_epochs": 1, "eval_strategy": None, "test_datasets": None}
    donod = {"keep_fraction": 0.5, "audit": {"enabled": False}}
    path = save(tmp_path, config | {"donod": donod})
    axolotl("preprocess", path, cwd=tmp_path)
    rows = chat_rows(40)
    rows[7]["messages"][1]["content"] = "I do not know."
    (tmp_path / "other.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config["datasets"][0]["path"] = str(tmp_path / "other.jsonl")
    changed = save(tmp_path, config | {"donod": donod})
    assert "scoring 1 rows" in axolotl("preprocess", changed, cwd=tmp_path).stdout


@pytest.mark.parametrize("adapter", [LORA, {}], ids=["lora", "full"])
def test_aw_dpo_alone_in_a_plain_dpo_run(adapter, tmp_path, tiny_model_dir):
    """Precomputed reference log-probabilities give the same run."""
    logs = []
    for name, precompute in (("fly", False), ("precomputed", True)):
        folder = tmp_path / name
        folder.mkdir()
        config = base_config(folder, tiny_model_dir) | pair_data(folder) | adapter
        config |= {
            "rl": "dpo",
            "num_epochs": 1,
            "aw_dpo": {"mode": "joint"},
            "precompute_ref_log_probs": precompute,
            "lora_dropout": 0.0 if adapter else None,
        }
        axolotl("train", save(folder, config), cwd=folder)
        state = last_state(folder / "out")
        assert state["global_step"] == 8
        logs.append(losses(state["log_history"]))
    assert logs[0][0] == pytest.approx(0.6931, abs=1e-4)  # ln 2 before any step
    assert logs[0][-1] < logs[0][0]
    assert logs[1] == pytest.approx(logs[0], abs=1e-6)


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
