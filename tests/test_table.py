"""Score tables and manifests survive a round trip, a crash and a second run."""

import hashlib
import json
import os
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from axolotl_donod.errors import DataError
from axolotl_donod.pruning.table import (
    SCORE_COLUMNS,
    dataset_fingerprint,
    read_manifest,
    read_scores,
    row_hash,
    write_manifest,
    write_scores,
)

FLOATS = "ce entropy w_dot_g g_norm_sq el2n token_accuracy don nod closeness".split()


def make_columns(n_rows=4):
    generator = np.random.default_rng(0)
    columns = {name: generator.normal(size=n_rows) for name in FLOATS}
    columns["don"][1] = np.nan
    columns["nod"][0] = 1e-310
    return columns | {
        "row_hash": [row_hash([i], [i]) for i in range(n_rows)],
        "source": ["a.jsonl", None, "b.jsonl", None][:n_rows],
        "source_row": [7, None, 2**60 + 1, None][:n_rows],
        "n_tokens": np.arange(n_rows),
        "rank": np.arange(n_rows, 0, -1),
        "kept": np.arange(n_rows) % 2 == 0,
        "reason": np.array(["kept"] * n_rows, dtype=object),
    }


def test_scores_survive_a_round_trip(tmp_path):
    path, columns = tmp_path / "new" / "scores.parquet", make_columns()
    write_scores(path, columns)
    loaded = read_scores(path)
    assert tuple(loaded) == SCORE_COLUMNS
    for name in SCORE_COLUMNS:
        np.testing.assert_array_equal(loaded[name], np.asarray(columns[name]))
    assert all(loaded[name].dtype == np.float64 for name in FLOATS)
    assert loaded["kept"].dtype == bool
    assert loaded["n_tokens"].dtype == loaded["rank"].dtype == np.int64


def test_same_columns_give_the_same_bytes(tmp_path):
    first, second, third = (tmp_path / name for name in "abc")
    write_scores(first, make_columns())
    write_scores(second, dict(reversed(make_columns().items())))
    write_scores(third, read_scores(first))
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    changed = make_columns()
    changed["ce"][0] += 1e-12
    write_scores(second, changed)
    assert first.read_bytes() != second.read_bytes()


def test_sources_may_be_left_out(tmp_path):
    columns = make_columns()
    del columns["source"], columns["source_row"]
    write_scores(tmp_path / "s", columns)
    loaded = read_scores(tmp_path / "s")
    assert loaded["source"].tolist() == loaded["source_row"].tolist() == [None] * 4


def test_nan_stays_a_number_that_does_not_exist(tmp_path):
    write_scores(tmp_path / "s", make_columns())
    column = pq.read_table(tmp_path / "s")["don"]
    assert column.null_count == 0
    assert np.isnan(column.to_numpy()).tolist() == [False, True, False, False]


def test_an_empty_table_keeps_its_schema(tmp_path):
    write_scores(tmp_path / "s", {name: [] for name in SCORE_COLUMNS})
    loaded = read_scores(tmp_path / "s")
    assert {name: values.size for name, values in loaded.items()} == dict.fromkeys(
        SCORE_COLUMNS, 0
    )
    assert all(loaded[name].dtype == np.float64 for name in FLOATS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extra": [1] * 4}, r"unknown: \['extra'\]"),
        ({"rank": [1, 2]}, "one length.*'rank': 2"),
        ({"rank": [1, None, 2, 3]}, "rank holds 1 nulls"),
        ({"ce": ["x"] * 4}, "column ce must hold double"),
        ({"reason": [1] * 4}, "column reason must hold string"),
    ],
)
def test_wrong_columns_are_named(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        write_scores(tmp_path / "s", make_columns() | change)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_column_is_named(tmp_path):
    columns = make_columns()
    del columns["el2n"]
    with pytest.raises(DataError, match=r"missing: \['el2n'\]"):
        write_scores(tmp_path / "s", columns)


def write_valid_scores(path):
    write_scores(path, make_columns())


def write_valid_manifest(path):
    write_manifest(path, {"a": 1})


@pytest.mark.parametrize("write", [write_valid_scores, write_valid_manifest])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, write, call):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="disk full"):
        write(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [write_valid_scores, write_valid_manifest])
def test_contents_reach_the_disk_before_the_name(tmp_path, monkeypatch, write):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda *args: (calls.append("fsync"), fsync(*args))
    )
    monkeypatch.setattr(
        os,
        "replace",
        lambda source, target: (
            calls.append(source.parent == target.parent),
            replace(source, target),
        ),
    )
    write(tmp_path / "file")
    assert calls == ["fsync", True]


@pytest.mark.parametrize("read", [read_scores, read_manifest])
def test_a_missing_file_is_named_with_a_remedy(tmp_path, read):
    with pytest.raises(DataError, match="gone does not exist; run `axolotl preprocess"):
        read(tmp_path / "gone")


@pytest.mark.parametrize("read", [read_scores, read_manifest])
@pytest.mark.parametrize("content", [b"", b"PAR1 not parquet", b"\xff\xfe{"])
def test_a_corrupt_file_is_named_with_a_remedy(tmp_path, read, content):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(
        DataError, match=r"bad is not .*readable.*run `axolotl preprocess"
    ):
        read(tmp_path / "bad")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_table_is_corrupt(tmp_path, share):
    path = tmp_path / "s"
    write_scores(path, make_columns())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="not a readable score table"):
        read_scores(path)


def test_a_table_of_other_columns_is_refused(tmp_path):
    pq.write_table(pa.table({"rank": [1, 2]}), tmp_path / "s")
    with pytest.raises(DataError, match=r"has columns \['rank'\]"):
        read_scores(tmp_path / "s")


def test_manifest_survives_a_round_trip_sorted(tmp_path):
    path = tmp_path / "new" / "manifest.json"
    write_manifest(path, {"b": np.float32(0.5), "a": {"z": None, "y": np.int64(3)}})
    assert read_manifest(path) == {"a": {"y": 3, "z": None}, "b": 0.5}
    expected = json.dumps({"a": {"y": 3, "z": None}, "b": 0.5}, indent=2) + "\n"
    assert path.read_text() == expected


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf"), {1, 2}])
def test_manifest_refuses_what_json_cannot_hold(tmp_path, value):
    with pytest.raises(DataError, match="manifest holds a value that JSON cannot"):
        write_manifest(tmp_path / "m", {"a": value})
    assert list(tmp_path.iterdir()) == []


def test_manifest_must_be_an_object(tmp_path):
    (tmp_path / "m").write_text("[1]")
    with pytest.raises(DataError, match="holds a JSON list"):
        read_manifest(tmp_path / "m")


def test_row_hash_depends_on_tokens_labels_and_their_border():
    hashes = [
        row_hash([1, 2, 3], [-100, 2, 3]),
        row_hash([1, 2, 3], [-100, -100, 3]),
        row_hash([1, 2, 4], [-100, 2, 3]),
        row_hash([1, 3, 2], [-100, 2, 3]),
        row_hash([1], [2, 3]),
        row_hash([1, 2], [3]),
        row_hash([], []),
    ]
    assert len(set(hashes)) == len(hashes)
    assert all(len(value) == 32 and int(value, 16) >= 0 for value in hashes)


def test_row_hash_is_the_same_on_every_machine():
    # Each list is its length and its values, as little-endian 64-bit integers.
    content = struct.pack("<8q", 3, 1, 2, 2**40, 3, -100, 2, 3)
    expected = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert row_hash([1, 2, 2**40], [-100, 2, 3]) == expected


def test_row_hash_ignores_the_container():
    expected = row_hash([1, 2, 3], [-100, 2, 3])
    for kind in (np.int32, np.int64, ">i4"):
        assert row_hash(np.array([1, 2, 3], kind), np.array([-100, 2, 3], kind)) == (
            expected
        )


def test_fingerprint_depends_on_rows_and_order():
    a, b = row_hash([1], [1]), row_hash([2], [2])
    prints = {dataset_fingerprint(rows) for rows in ([], [a], [b], [a, b], [b, a])}
    assert len(prints) == 5
    assert dataset_fingerprint(iter([a, b])) == dataset_fingerprint([a, b])
