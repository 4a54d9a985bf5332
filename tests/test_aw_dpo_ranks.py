import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.runs import OFFLINE

ROOT = Path(__file__).resolve().parents[1]

DEFAULT = {
    "lora": False,
    "precompute": False,
    "checkpointing": False,
    "find_unused": False,
}


def run(folder, ranks, options):
    folder.mkdir()
    command = [sys.executable, "-m"]
    if ranks > 1:
        command += ["torch.distributed.run", "--nproc_per_node", str(ranks)]
        command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m"]
    command += ["tests.aw_dpo_ranks", str(folder)]
    command += [json.dumps(DEFAULT | options | {"ranks": ranks})]
    environment = os.environ | OFFLINE | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    log = json.loads((folder / "log.json").read_text("utf-8"))
    return torch.load(folder / "weights.pt"), log


@pytest.mark.parametrize(
    "options",
    [
        {"find_unused": True},
        {"lora": True, "checkpointing": True, "shared_prompt": True},
    ],
    ids=["full", "lora with checkpointing and a shared prompt"],
)
def test_two_ranks_train_like_one(tmp_path, options):
    one, alone = run(tmp_path / "one", 1, options)
    two, together = run(tmp_path / "two", 2, options)
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(together[:3], alone[:3], strict=True):
        for name in ("loss", "entropy", "rewards/answer/margins", "num_tokens"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
    assert together[2]["loss"] != pytest.approx(together[0]["loss"], rel=1e-3)
