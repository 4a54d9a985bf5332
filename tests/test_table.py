"""Score tables and manifests survive a round trip, a crash and a second run."""

import hashlib
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from axolotl_donod.errors import DataError
from axolotl_donod.pruning.table import (
    FIXED_COLUMNS,
    dataset_fingerprint,
    hash_array,
    read_clones,
    read_manifest,
    read_scores,
    row_hash,
    score_names,
    score_table,
    write_clones,
    write_manifest,
    write_scores,
)

SCORES = ["ce", "el2n", "g_norm_sq", "my_score"]
FLOATS = [*SCORES, "don", "nod", "closeness"]
# The order in which a table holds its columns.
COLUMNS = """
row_hash source source_row n_tokens ce el2n g_norm_sq my_score don nod closeness rank
kept reason cluster duplicate_group
""".split()
CLONE_COLUMNS = """
row_hash kind parent n_tokens ce my_score closeness rank
""".split()


def make_columns(n_rows=4):
    generator = np.random.default_rng(0)
    columns = {name: generator.normal(size=n_rows) for name in FLOATS}
    columns["don"][1] = columns["my_score"][0] = np.nan
    columns["nod"][0] = 1e-310
    return columns | {
        "row_hash": [row_hash([i], [i]) for i in range(n_rows)],
        "source": ["a.jsonl", None, "b.jsonl", None][:n_rows],
        "source_row": [7, None, 2**60 + 1, None][:n_rows],
        "n_tokens": np.arange(n_rows),
        "rank": np.arange(n_rows, 0, -1),
        "kept": np.arange(n_rows) % 2 == 0,
        "reason": np.array(["kept"] * n_rows, dtype=object),
        "cluster": np.arange(n_rows) - 1,
        "duplicate_group": np.full(n_rows, -1),
    }


def make_clones():
    return {
        "row_hash": [row_hash([i], [i]) for i in range(3)],
        "kind": np.array(["shuffled", "refusal", "shuffled"], dtype=object),
        "parent": np.array([2, 0, 1]),
        "n_tokens": np.array([5, 0, 1]),
        "ce": np.array([0.5, np.nan, -np.inf]),
        "my_score": np.array([1.0, 2.0, 3.0]),
        "closeness": np.array([0.1, np.nan, 0.3]),
        "rank": np.array([3, 9, 1]),
    }


def test_scores_survive_a_round_trip(tmp_path):
    path, columns = tmp_path / "new" / "scores.parquet", make_columns()
    write_scores(path, columns)
    loaded = read_scores(path)
    assert list(loaded) == COLUMNS
    for name in COLUMNS:
        np.testing.assert_array_equal(loaded[name], np.asarray(columns[name]))
    assert all(loaded[name].dtype == np.float64 for name in FLOATS)
    assert loaded["kept"].dtype == bool
    for name in ("n_tokens", "rank", "cluster", "duplicate_group"):
        assert loaded[name].dtype == np.int64


def test_clones_survive_a_round_trip(tmp_path):
    path, columns = tmp_path / "new" / "clones.parquet", make_clones()
    write_clones(path, columns)
    loaded = read_clones(path)
    assert list(loaded) == CLONE_COLUMNS
    for name, values in columns.items():
        np.testing.assert_array_equal(loaded[name], np.asarray(values))
    write_clones(tmp_path / "again", dict(reversed(loaded.items())))
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_the_names_of_scores_are_all_but_the_fixed_columns(tmp_path):
    write_scores(tmp_path / "s", make_columns())
    write_clones(tmp_path / "c", make_clones())
    expected = ["n_tokens", *SCORES]
    assert score_names(read_scores(tmp_path / "s")) == expected
    assert score_names(score_table(tmp_path / "s")) == expected
    assert score_names(read_clones(tmp_path / "c")) == ["n_tokens", "ce", "my_score"]
    assert {*COLUMNS, *CLONE_COLUMNS} - {*SCORES} == FIXED_COLUMNS


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


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("row_hash", lambda values: np.array([value.encode() for value in values])),
        ("row_hash", lambda values: pa.array(values)),
        ("reason", lambda values: pa.array(values).dictionary_encode()),
        ("source", lambda values: np.array(values, dtype=object)),
        ("rank", lambda values: pa.chunked_array([values[:1], values[1:]])),
        ("n_tokens", lambda values: values.astype(np.int32)),
    ],
)
def test_what_holds_a_column_does_not_matter(tmp_path, name, change):
    columns = make_columns()
    write_scores(tmp_path / "a", columns)
    write_scores(tmp_path / "b", columns | {name: change(columns[name])})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_sources_may_be_left_out(tmp_path):
    columns = make_columns()
    del columns["source"], columns["source_row"]
    write_scores(tmp_path / "s", columns)
    loaded = read_scores(tmp_path / "s")
    assert loaded["source"].tolist() == loaded["source_row"].tolist() == [None] * 4


def test_nan_stays_a_number_that_does_not_exist(tmp_path):
    write_scores(tmp_path / "s", make_columns())
    column = score_table(tmp_path / "s")["don"]
    assert column.null_count == 0
    assert np.isnan(column.to_numpy()).tolist() == [False, True, False, False]


def test_an_empty_table_keeps_its_schema(tmp_path):
    write_scores(tmp_path / "s", {name: [] for name in COLUMNS})
    loaded = read_scores(tmp_path / "s")
    sizes = {name: values.size for name, values in loaded.items()}
    assert sizes == dict.fromkeys(COLUMNS, 0)
    assert all(loaded[name].dtype == np.float64 for name in FLOATS)
    assert hash_array(score_table(tmp_path / "s")["row_hash"]).shape == (0,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": [1, 2]}, r"one length.*'rank': 2"),
        ({"row_hash": ["a"]}, r"one length.*'row_hash': 1"),
        ({"rank": [1, None, 2, 3]}, "rank holds 1 nulls"),
        ({"rank": np.array([1.0, np.nan, 2, 3])}, "column rank must hold int64"),
        ({"rank": [2**63] * 4}, "column rank must hold int64"),
        ({"ce": ["x"] * 4}, "column ce must hold double"),
        ({"my_score": [None] * 4}, "my_score holds 4 nulls; write NaN"),
        ({"reason": [1] * 4}, "column reason must hold string"),
        ({"reason": np.arange(4)}, "column reason must hold string"),
    ],
)
def test_wrong_columns_are_named(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        write_scores(tmp_path / "s", make_columns() | change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("write", "columns", "name"),
    [
        (write_scores, make_columns, "closeness"),
        (write_scores, make_columns, "row_hash"),
        (write_clones, make_clones, "parent"),
    ],
)
def test_a_missing_column_is_named(tmp_path, write, columns, name):
    left = columns()
    del left[name]
    with pytest.raises(DataError, match=rf"missing: \['{name}'\]"):
        write(tmp_path / "s", left)


def test_hashes_are_read_from_any_part_of_a_column():
    hashes = [row_hash([i], [i]) for i in range(9)]
    parts = [pa.array(hashes[:4]).slice(1), pa.array([], pa.string())]
    column = pa.chunked_array([*parts, pa.array(hashes[4:])])
    expected = [value.encode() for value in hashes[1:]]
    assert hash_array(column).tolist() == expected
    assert hash_array(column.slice(2, 3)).tolist() == expected[2:5]


@pytest.mark.parametrize("value", ["", "abc", "0" * 33])
def test_a_hash_of_another_length_is_refused(value):
    column = pa.chunked_array([[row_hash([1], [1]), value]])
    with pytest.raises(DataError, match="row_hash holds no 32 digits"):
        hash_array(column)


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


@pytest.mark.parametrize("read", [read_scores, read_clones, read_manifest])
def test_a_missing_file_is_named_with_a_remedy(tmp_path, read):
    with pytest.raises(
        DataError, match="gone does not exist; run `axolotl donod score"
    ):
        read(tmp_path / "gone")


@pytest.mark.parametrize("read", [read_scores, read_clones, read_manifest])
@pytest.mark.parametrize("content", [b"", b"PAR1 not parquet", b"\xff\xfe{"])
def test_a_corrupt_file_is_named_with_a_remedy(tmp_path, read, content):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(
        DataError, match=r"bad is not .*readable.*run `axolotl donod score"
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


def test_a_flipped_byte_in_the_data_is_corrupt(tmp_path):
    path = tmp_path / "s"
    write_scores(path, make_columns())
    whole = path.read_bytes()
    # The pages come first and carry check sums.
    column = pq.read_metadata(path).row_group(0).column(COLUMNS.index("ce"))
    start = column.data_page_offset
    stop = (column.dictionary_page_offset or start) + column.total_compressed_size
    for place in range(stop - 16, stop):
        content = bytearray(whole)
        content[place] ^= 4
        path.write_bytes(bytes(content))
        with pytest.raises(DataError, match="not a readable score table"):
            read_scores(path)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": [1, 2, 3, 4], "don": None},
        {"rank": [1.0, 2.0, 3.0, 4.0]},
        {"my_score": ["a", "b", "c", "d"]},
        {"kept": [1, 0, 1, 0]},
    ],
)
def test_a_table_of_other_columns_is_refused(tmp_path, change):
    path = tmp_path / "s"
    write_scores(path, make_columns())
    table = score_table(path)
    columns = {name: table[name] for name in table.column_names} | change
    pq.write_table(pa.table({n: v for n, v in columns.items() if v is not None}), path)
    with pytest.raises(DataError, match=r"has columns \['row_hash', .*donod score"):
        read_scores(path)


def test_the_tables_of_rows_and_clones_are_told_apart(tmp_path):
    write_clones(tmp_path / "c", make_clones())
    with pytest.raises(DataError, match=r"has columns \['row_hash', 'kind'"):
        read_scores(tmp_path / "c")


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


MANY_ROWS = """
import resource, sys
from pathlib import Path
import numpy as np
from axolotl_donod.pruning.table import score_table, write_scores

path, n = Path(sys.argv[1]), int(sys.argv[2])
scores = [f"score_{number}" for number in range(10)]
numbers = np.arange(n)
columns = {name: numbers + 0.5 for name in [*scores, "don", "nod", "closeness"]}
columns |= {
    name: numbers for name in ("n_tokens", "rank", "cluster", "duplicate_group")
}
columns |= {
    "row_hash": np.char.zfill(numbers.astype("S8"), 32),
    "kept": numbers % 3 == 0,
    "reason": np.array(["kept", "rank below the cut"], dtype=object)[numbers % 2],
}

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak()
write_scores(path, columns)
written = peak()
del columns
table = score_table(path)
read = peak()
assert all((table[name].to_numpy() == numbers + 0.5).all() for name in scores)
print(written - before, read - written, table.nbytes)
"""


def test_many_rows_are_written_and_read_in_bounded_memory(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", MANY_ROWS, str(tmp_path / "s"), "1000000"],
        capture_output=True,
        text=True,
        check=True,
    )
    to_write, to_read, size = map(int, result.stdout.split())
    # Beside the columns: hashes as Arrow holds them, and a row group at a time.
    assert to_write < 150 * 2**20
    assert to_read < 1.5 * size
