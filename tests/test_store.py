"""Shards survive kills, damage, full disks and several writers at once."""

import inspect
import itertools
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from axolotl_donod.errors import DataError
from axolotl_donod.pruning import store as store_module
from axolotl_donod.pruning.store import ShardStore

ROOT = Path(__file__).resolve().parents[1]


def batch(numbers):
    """Scores that follow from the number of a row, so that any reader can check."""
    numbers = np.asarray(numbers)
    hashes = np.array([b"%032x" % number for number in numbers.tolist()])
    ce = np.where(numbers % 7 == 0, np.nan, numbers / 3)
    return hashes, {"n_tokens": numbers.astype(np.int64), "ce": ce}


BATCH = f"""
import sys
from pathlib import Path
import numpy as np
from axolotl_donod.pruning import store as store_module
from axolotl_donod.pruning.store import ShardStore

{inspect.getsource(batch)}
"""
WRITER = f"""{BATCH}
folder, writer, many, count = Path(sys.argv[1]), *map(int, sys.argv[2:])
store_module.MANY_SHARDS = many
store = ShardStore(folder, "f", writer)
for step in range(count):
    first = 10**6 * writer + 3 * step
    store.append(*batch(range(first, first + 3)))
    print(first, flush=True)
"""


def run(script, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def stored_numbers(store):
    """Numbers of the rows that can be read, after checking all that is read."""
    hashes, columns = store.read()
    assert (np.unique(hashes) == hashes).all()
    if not hashes.size:
        assert columns == {}
        return []
    numbers = [int(value, 16) for value in hashes]
    expected_hashes, expected = batch(numbers)
    np.testing.assert_array_equal(hashes, expected_hashes)
    assert list(columns) == ["ce", "n_tokens"]
    for name, values in columns.items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == expected[name].dtype
    return numbers


def files(store):
    return sorted(path.name for path in store.folder.iterdir())


def shards(store, kind="*"):
    return sorted(store.folder.glob(f"{kind}.parquet"))


def test_what_is_appended_is_read_in_the_order_of_the_hashes(tmp_path):
    store = ShardStore(tmp_path / "new", "f")
    assert stored_numbers(store) == []
    assert not store.folder.exists()
    for numbers in ([9, 2], [5], [0, 7, 1]):
        store.append(*batch(numbers))
        np.testing.assert_array_equal(store.hashes(), store.read()[0])
    assert stored_numbers(store) == [0, 1, 2, 5, 7, 9]
    assert stored_numbers(ShardStore(tmp_path / "new", "f")) == [0, 1, 2, 5, 7, 9]
    assert stored_numbers(ShardStore(tmp_path / "new", "other")) == []


def test_a_row_that_is_stored_twice_is_read_once(tmp_path):
    first, second = ShardStore(tmp_path, "f", 0), ShardStore(tmp_path, "f", 1)
    first.append(*batch([1, 2, 1]))
    second.append(*batch([2, 3]))
    first.append(*batch([1, 2, 1]))
    assert stored_numbers(first) == [1, 2, 3]


def test_the_order_of_the_columns_does_not_matter(tmp_path):
    store = ShardStore(tmp_path, "f")
    for number in range(2):
        hashes, columns = batch([number])
        names = sorted(columns, reverse=bool(number))
        store.append(hashes, {name: columns[name] for name in names})
    assert stored_numbers(store) == [0, 1]


def test_a_look_at_the_hashes_sees_what_others_added_since(tmp_path):
    store, other = ShardStore(tmp_path, "f", 0), ShardStore(tmp_path, "f", 1)
    other.append(*batch([1]))
    assert store.hashes().tolist() == batch([1])[0].tolist()
    other.append(*batch([2]))
    assert store.hashes().tolist() == batch([1, 2])[0].tolist()
    for path in shards(store):
        path.unlink()
    assert store.hashes().tolist() == []


def test_several_processes_append_and_merge_at_once(tmp_path):
    writers = [run(WRITER, tmp_path, number, 5, 40) for number in range(3)]
    reader = ShardStore(tmp_path, "f", 9)
    seen = 0
    while any(writer.poll() is None for writer in writers):
        count = len(stored_numbers(reader))
        assert count >= seen
        seen = count
    for writer in writers:
        assert writer.communicate()[1] == ""
    expected = [10**6 * w + n for w in range(3) for n in range(120)]
    assert stored_numbers(reader) == expected
    np.testing.assert_array_equal(reader.hashes(), batch(expected)[0])
    assert len(shards(reader)) < 60


# Kills


@pytest.mark.parametrize("many", [3, 10**6])
def test_a_killed_writer_loses_at_most_the_batch_it_was_writing(tmp_path, many):
    chance = random.Random(many)
    store = ShardStore(tmp_path, "f", 7)
    acknowledged = set()
    for writer in range(3):
        process = run(WRITER, tmp_path, writer, many, 10**5)
        lines = [process.stdout.readline() for _ in range(chance.randrange(1, 12))]
        time.sleep(chance.random() / 50)
        os.kill(process.pid, signal.SIGKILL)
        lines += process.communicate()[0].split()
        done = {int(line) + place for line in lines for place in range(3)}
        stored = set(stored_numbers(store))
        assert acknowledged | done <= stored
        assert len(stored - acknowledged - done) in (0, 3)
        acknowledged = stored
    assert not list(store.folder.glob("*.corrupt"))


KILLED_AT_EVERY_STEP = f"""{BATCH}
import os, signal
store_module.MANY_SHARDS = 3
steps = left = 0

def deadly(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

os.replace, Path.unlink = deadly(os.replace), deadly(Path.unlink)
Path.write_bytes = deadly(Path.write_bytes)
while True:
    steps += 1
    process = os.fork()
    if not process:
        left = steps
        store = ShardStore(Path(sys.argv[1]), str(steps))
        for step in range(4):
            store.append(*batch([2 * step, 2 * step + 1]))
            print(steps, step, flush=True)
        os._exit(0)
    if os.waitpid(process, 0)[1] == 0:
        break
"""


def test_a_kill_at_any_step_of_appending_and_merging_loses_no_row(tmp_path):
    process = run(KILLED_AT_EVERY_STEP, tmp_path)
    output, errors = process.communicate(timeout=60)
    assert errors == ""
    told = [tuple(map(int, line.split())) for line in output.splitlines()]
    last = told[-1][0]
    # Four appends and a merge of three: three calls each, and three deletions.
    assert last == (4 + 1) * 3 + 3 + 1
    assert len(shards(ShardStore(tmp_path, str(last)))) == 2
    for steps in range(1, last + 1):
        store = ShardStore(tmp_path, str(steps))
        done = [number for number, _ in told].count(steps)
        stored = stored_numbers(store)
        assert stored in (list(range(2 * done)), list(range(2 * done + 2)))
        # Whoever goes on ends with the same rows.
        for step in range(done, 4):
            store.append(*batch([2 * step, 2 * step + 1]))
        assert stored_numbers(store) == list(range(8))


def test_what_a_killed_writer_left_is_no_shard_and_goes_in_time(tmp_path):
    store = ShardStore(tmp_path, "f")
    store.append(*batch([1]))
    whole = shards(store)[0]
    old, new = (store.folder / f".{whole.name}.{end}" for end in ("abc", "def"))
    for path in (old, new):
        path.write_bytes(whole.read_bytes()[:100])
    os.utime(old, (0, 0))
    assert stored_numbers(store) == [1]
    store.compact()
    assert not old.exists()
    # Another writer may be at it at this moment.
    assert new.exists()


# Merging


def test_many_small_shards_become_one_and_say_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MANY_SHARDS", 20)
    store = ShardStore(tmp_path, "f")
    for number in range(19):
        store.append(*batch([number]))
    store.compact()
    assert len(shards(store)) == 19
    store.append(*batch([19]))
    store.compact()
    assert [path.name[:4] for path in shards(store)] == ["all-"]
    assert stored_numbers(store) == list(range(20))
    # The first append of a new process looks after what another one left.
    for number in range(20, 40):
        store.append(*batch([number]))
    ShardStore(tmp_path, "f", 1).append(*batch([40]))
    assert len(shards(store, "all*")) == 2
    assert len(shards(store)) == 3
    assert stored_numbers(store) == list(range(41))


# Damage


def truncated(path):
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def foreign(path):
    pq.write_table(pa.table({"x": [1]}), path)


@pytest.mark.parametrize("damage", [truncated, emptied, flipped, foreign])
@pytest.mark.parametrize("look", [ShardStore.read, ShardStore.hashes])
def test_a_damaged_shard_is_named_and_set_aside(tmp_path, caplog, damage, look):
    store = ShardStore(tmp_path, "f")
    for number in range(3):
        store.append(*batch([number]))
    broken = next(
        p for p in shards(store) if pq.read_table(p)["n_tokens"].to_pylist() == [1]
    )
    damage(broken)
    with caplog.at_level(logging.WARNING, "axolotl.donod"):
        look(ShardStore(tmp_path, "f"))
    assert str(broken) in caplog.text
    assert f"{broken.name}.corrupt" in files(store)
    caplog.clear()
    assert stored_numbers(store) == [0, 2]
    assert caplog.text == ""
    store.append(*batch([1]))
    assert stored_numbers(store) == [0, 1, 2]


def test_no_flipped_byte_goes_unseen(tmp_path, caplog):
    store = ShardStore(tmp_path, "f")
    store.append(*batch([3, 4]))
    path = shards(store)[0]
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(content))
        assert stored_numbers(store) == []
    path.write_bytes(whole)
    assert stored_numbers(store) == [3, 4]


@pytest.mark.parametrize("look", [ShardStore.read, ShardStore.hashes])
@pytest.mark.parametrize(
    "columns",
    [
        {"ce": np.zeros(1)},
        {"ce": np.zeros(1), "n_tokens": np.zeros(1)},
        {"ce": np.zeros(1), "n_tokens": np.zeros(1, np.int64), "ifd": np.zeros(1)},
    ],
)
def test_a_shard_of_other_columns_than_most_rows_is_set_aside(
    tmp_path, caplog, columns, look
):
    store = ShardStore(tmp_path, "f")
    store.append(*batch([1, 2]))
    store.append(batch([0])[0], columns)
    with caplog.at_level(logging.WARNING, "axolotl.donod"):
        look(store)
    assert "has columns" in caplog.text and "not row_hash: string, ce:" in caplog.text
    assert stored_numbers(store) == [1, 2]
    assert sum(name.endswith(".corrupt") for name in files(store)) == 1


def test_a_merge_sets_aside_what_cannot_be_merged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(store_module, "MANY_SHARDS", 4)
    store = ShardStore(tmp_path, "f")
    for number in range(3):
        store.append(*batch([number, number + 10]))
    flipped(shards(store)[0])
    store.append(batch([7])[0], {"other": np.zeros(1)})
    store.compact()
    assert len(shards(store)) == len(shards(store, "all*")) == 1
    assert sum(name.endswith(".corrupt") for name in files(store)) == 2
    assert len(stored_numbers(store)) == 4


# Disks


def mount(folder, *options):
    """A small disk of its own, where the machine allows one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"cannot mount: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    mount(folder, "size=40k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_that_leaves_nothing_half_written(small_disk):
    store = ShardStore(small_disk, "f")
    with pytest.raises(DataError, match=r"no space is left for .*/f: .*cache_path"):
        for number in itertools.count():
            store.append(*batch([number]))
    assert number > 1
    assert stored_numbers(store) == list(range(number))
    left = {name for name in files(store) if not name.endswith(".parquet")}
    assert left <= {"compact.lock"}
    # With room again, work goes on where it stopped.
    subprocess.run(
        ["mount", "-o", "remount,size=1m", "tmpfs", str(small_disk)], check=True
    )
    store.append(*batch([number]))
    assert stored_numbers(store) == list(range(number + 1))


TOO_LARGE = f"""{BATCH}
store = ShardStore(Path(sys.argv[1]), "f")
store.append(*batch([1]))
try:
    store.append(*batch(range(2, 2000)))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_file_that_may_not_grow_is_an_error_that_leaves_nothing(tmp_path):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    output, errors = run(TOO_LARGE, tmp_path, preexec_fn=limited).communicate()
    assert errors == ""
    assert output.startswith(f"DataError no space is left for {tmp_path / 'f'}: ")
    store = ShardStore(tmp_path, "f")
    assert stored_numbers(store) == [1]
    assert len(shards(store)) == 1 and not list(store.folder.glob(".*"))


def test_a_read_only_disk_is_an_error_and_still_read(small_disk):
    ShardStore(small_disk, "f").append(*batch([1]))
    remount = ["mount", "-o", "remount,ro", "tmpfs", str(small_disk)]
    subprocess.run(remount, check=True)
    store = ShardStore(small_disk, "f")
    with pytest.raises(DataError, match=r"cannot write to .*/f: Read-only file system"):
        store.append(*batch([2]))
    assert stored_numbers(store) == [1]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = ShardStore(tmp_path / "file", "f")
    with pytest.raises(DataError, match=r"cannot write to .*make the folder writable"):
        store.append(*batch([2]))
