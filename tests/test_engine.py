"""Scoring over processes: several ranks, and `kill -9` at any moment."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.runs import OFFLINE

ROWS = 120
# Few rows a batch, so that there are many moments to be killed at.
SETTINGS = {"scoring": {"batch_tokens": 160}, "audit": {"min_rows": 12}}


def start(folder: Path, model: Path, **environment: str) -> subprocess.Popen[str]:
    """Begin to prune into `folder` in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"folder": str(folder / "donod"), "model": str(model), "rows": ROWS}
    (folder / "given.yml").write_text(yaml.safe_dump(given | {"settings": SETTINGS}))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pruning_cases", str(folder / "given.yml")],
        cwd=Path(__file__).parents[1],
        env=os.environ | OFFLINE | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output


def kept(output: str) -> str:
    return next(line for line in output.splitlines() if line.startswith("kept"))


def results(folder: Path) -> dict[str, bytes]:
    names = ("scores.parquet", "clones.parquet", "audit.json", "manifest.json")
    return {name: (folder / "donod" / name).read_bytes() for name in names}


def read_hashes(folder: Path, name: str) -> list[str]:
    return pq.read_table(folder / f"donod/{name}.parquet")["row_hash"].to_pylist()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model_dir):
    folder = tmp_path_factory.mktemp("undisturbed")
    output = finished(start(folder, tiny_model_dir))
    return results(folder), kept(output)


def test_two_ranks_share_the_rows_and_agree_with_one(
    undisturbed, tiny_model_dir, tmp_path
):
    ranks = [
        start(tmp_path, tiny_model_dir, RANK=str(rank), WORLD_SIZE="2")
        for rank in range(2)
    ]
    outputs = [finished(process) for process in ranks]
    assert results(tmp_path) == undisturbed[0]
    assert [kept(output) for output in outputs] == [undisturbed[1]] * 2
    shares = [
        int(re.search(rf"scoring (\d+) rows .* \(rank {rank} of 2\)", output)[1])
        for rank, output in enumerate(outputs)
    ]
    different = {*read_hashes(tmp_path, "scores"), *read_hashes(tmp_path, "clones")}
    assert sum(shares) == len(different)
    assert min(shares) > 0.4 * sum(shares)


def test_kill_9_again_and_again_changes_no_byte(undisturbed, tiny_model_dir, tmp_path):
    draw, deaths = random.Random(3), 0
    shards = tmp_path / "donod/shards"
    for _ in range(3):
        process = start(tmp_path, tiny_model_dir)
        known = len(list(shards.rglob("batch-*.parquet")))
        while process.poll() is None:
            if len(list(shards.rglob("batch-*.parquet"))) >= known + 3:
                time.sleep(draw.random() * 0.05)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.communicate(timeout=60)
        deaths += process.returncode == -signal.SIGKILL
    assert deaths >= 2
    scored_before = len(list(shards.rglob("batch-*.parquet")))
    output = finished(start(tmp_path, tiny_model_dir))
    assert results(tmp_path) == undisturbed[0]
    assert kept(output) == undisturbed[1]
    assert scored_before >= 6  # nothing of the dead processes was scored again
    total = len(list(shards.rglob("batch-*.parquet")))
    assert total < scored_before + ROWS
