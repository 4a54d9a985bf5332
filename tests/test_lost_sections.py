"""A section of ours is never ignored in silence, whatever became of the plugin."""

import pytest

from tests.runs import PLUGIN, axolotl, base_config, chain_config, save, sft_data


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"plugins": None, "donod": {"keep_fraction": 0.5}},
            "section `donod:` would be ignored, because no plugin of plugins=[]",
        ),
        (
            # A module that does not exist: Axolotl 0.19 logs it and goes on.
            {"plugins": ["axolotl_donod.moved.DonodPlugin"], "donod": {}},
            "could not be imported",
        ),
        ({"donod": {"keep_fracton": 0.5}}, "did you mean `keep_fraction`?"),
        ({"donod": {"keep_fraction": 1.4}}, "donod.keep_fraction: "),
        ({"dono": {"keep_fraction": 0.5}}, "did you mean `donod:`?"),
    ],
    ids=["no plugin line", "broken plugin", "wrong key", "wrong value", "misspelt"],
)
def test_the_run_fails_before_any_model_loads(keys, expected, tmp_path, tiny_model_dir):
    config = base_config(tmp_path, tiny_model_dir) | sft_data(tmp_path) | keys
    result = axolotl("train", save(tmp_path, config), cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert expected in result.stdout or (
        # Axolotl 0.21 itself refuses a plugin that it cannot import.
        keys.get("plugins") == ["axolotl_donod.moved.DonodPlugin"]
        and "No module named 'axolotl_donod.moved'" in result.stdout
    )
    assert "Loading model" not in result.stdout
    assert not (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"datasets": None}, "alignment.datasets is missing"),
        ({"learning_rat": 1e-6}, "did you mean `learning_rate`?"),
        ({"datasets": [{"path": "gone.jsonl"}]}, "no file 'gone.jsonl'"),
        ({"aw_dpo": {"mode": "both"}}, "alignment.aw_dpo.mode: "),
        ({"dpo_use_liger_kernel": True}, "dpo_use_liger_kernel"),
        ({"micro_batch_size": "many"}, "micro_batch_size"),
    ],
    ids=["no data", "wrong key", "no file", "wrong mode", "liger", "wrong type"],
)
def test_a_stage_that_cannot_run_stops_the_first_one(
    change, expected, tmp_path, tiny_model_dir
):
    config = chain_config(tmp_path, tiny_model_dir)
    config["alignment"] |= change
    if change.get("datasets", ()) is None:
        del config["alignment"]["datasets"]
    result = axolotl("train", save(tmp_path, config), cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert expected in result.stdout
    assert not (tmp_path / "out/donod/scores.parquet").exists()


def test_doctor_finds_what_training_would_lose(tmp_path, tiny_model_dir):
    config = base_config(tmp_path, tiny_model_dir) | {"donod": {"keep_rows": 3}}
    good = save(tmp_path, config, "good.yml")
    assert (
        "the plugin is named" in axolotl("donod", "doctor", good, cwd=tmp_path).stdout
    )
    bad = save(tmp_path, config | {"plugins": []}, "bad.yml")
    result = axolotl("donod", "doctor", bad, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert f"lacks the line `plugins: [{PLUGIN}]`" in result.stdout
