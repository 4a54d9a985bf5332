"""Pruning a dataset end to end on the tiny model: reuse, staleness, records."""

import json
import logging
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import DataError
from axolotl_donod.pruning.head import output_head
from axolotl_donod.pruning.model import ScoringModel
from axolotl_donod.pruning.prune import prune
from axolotl_donod.pruning.table import read_manifest, read_scores, row_hash
from tests.tiny import tiny_tokenizer


@pytest.fixture
def model(tiny_model_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    return ScoringModel(
        name=str(folder),
        revision=None,
        adapter=None,
        dtype="float32",
        attn_implementation="sdpa",
        trust_remote_code=False,
        tokenizer=tiny_tokenizer,
        local_rank=0,
        seed=42,
    )


def make_rows(count=12, masked=()):
    draw = np.random.default_rng(0)
    ids = [draw.integers(3, 400, size=6 + index % 5).tolist() for index in range(count)]
    labels = [[-100, -100, *row[2:]] for row in ids]
    for index in masked:
        labels[index] = [-100] * len(labels[index])
    return Dataset.from_dict({"input_ids": ids, "labels": labels})


def run(rows, model, folder, trace=dict, **settings):
    return prune(
        rows,
        DonodConfig(**settings),
        folder=folder,
        model=model,
        training_learning_rate=1e-3,
        trace=trace,
    )


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="axolotl.donod")
    return caplog


def test_records_every_row_and_how_it_was_ranked(model, tmp_path, log):
    rows = make_rows(masked=[3])
    hashes = [row_hash(row["input_ids"], row["labels"]) for row in rows]
    sources = {hashes[5]: ("file.jsonl", 17)}
    kept = run(rows, model, tmp_path / "donod", lambda: sources, keep_fraction=0.5)
    table = read_scores(tmp_path / "donod/scores.parquet")
    manifest = read_manifest(tmp_path / "donod/manifest.json")
    assert kept.tolist() == np.flatnonzero(table["kept"]).tolist()
    assert len(kept) == manifest["kept"] == 6
    assert table["row_hash"].tolist() == hashes
    assert (table["source"][5], table["source_row"][5]) == ("file.jsonl", 17)
    assert table["source"][4] is None
    assert table["reason"][3] == "no trained tokens"
    assert table["rank"][3] == 12
    with model.loaded() as network:
        assert manifest["head_norm"] == output_head(network).norm
    assert manifest["reasons"] == {
        "kept": 6,
        "no trained tokens": 1,
        "rank below the cut": 5,
    }
    assert "scoring 12 rows" in log.text


def test_another_budget_or_preset_reuses_the_scores(model, tmp_path, log):
    rows, folder = make_rows(), tmp_path / "donod"
    run(rows, model, folder, keep_fraction=0.5)
    first = read_scores(folder / "scores.parquet")
    log.clear()
    kept = run(rows, model, folder, keep_rows=4, preset="paper")
    second = read_scores(folder / "scores.parquet")
    assert "scoring 12 rows" not in log.text
    assert "reusing the scores of 12 rows" in log.text
    assert len(kept) == 4
    assert second["g_norm_sq"].tolist() == first["g_norm_sq"].tolist()
    assert second["nod"].tolist() != first["nod"].tolist()  # another probe step


def test_the_same_run_writes_the_same_bytes(model, tmp_path):
    rows, folder = make_rows(), tmp_path / "donod"
    run(rows, model, folder)
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    run(rows, model, folder)
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before


def test_changed_weights_are_scored_again(model, tmp_path, log):
    rows, folder = make_rows(), tmp_path / "donod"
    run(rows, model, folder)
    first = read_scores(folder / "scores.parquet")
    weights = load_file(f"{model.name}/model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    weights[name] = weights[name] + torch.eye(*weights[name].shape) * 0.5
    save_file(weights, f"{model.name}/model.safetensors", metadata={"format": "pt"})
    log.clear()
    run(rows, model, folder)
    assert "scoring 12 rows" in log.text
    second = read_scores(folder / "scores.parquet")
    assert second["ce"].tolist() != first["ce"].tolist()


@pytest.mark.parametrize("file", ["scores.parquet", "manifest.json"])
def test_a_damaged_file_is_named_and_made_again(file, model, tmp_path, log):
    rows, folder = make_rows(), tmp_path / "donod"
    run(rows, model, folder)
    good = (folder / file).read_bytes()
    (folder / file).write_bytes(good[: len(good) // 2])
    log.clear()
    run(rows, model, folder)
    assert f"scoring again: {folder / file}" in log.text
    restored = (folder / file).read_bytes()
    if file == "scores.parquet":
        assert restored == good
    else:  # all but the time it took
        now, then = json.loads(restored), json.loads(good)
        for manifest in (now, then):
            del manifest["identity"]["scoring_seconds"]
        assert now == then


def test_scores_never_stand_beside_another_models_manifest(model, tmp_path, log):
    """A kill between the two files must not let old identity vouch for new scores."""
    rows, folder = make_rows(), tmp_path / "donod"
    run(rows, model, folder)
    old_manifest = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()  # what a kill in between leaves
    log.clear()
    run(rows, model, folder)
    assert "scoring 12 rows" in log.text
    assert json.loads(old_manifest)["kept"] == 4  # 0.3 of 12, rounded


def test_more_rows_than_there_are_is_an_error(model, tmp_path):
    with pytest.raises(DataError, match=r"keep_rows .* 13 of 12 rows"):
        run(make_rows(), model, tmp_path / "donod", keep_rows=13)


def test_no_rows_is_an_error(model, tmp_path):
    with pytest.raises(DataError, match="no training rows"):
        run(make_rows(0), model, tmp_path / "donod")
