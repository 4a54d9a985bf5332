"""`lm-eval validate` over the whole pack."""

import subprocess
import sys
from pathlib import Path

from tests.test_task_pack import PACK, names


def test_lm_eval_validates_every_task_and_group():
    done = subprocess.run(
        [
            Path(sys.executable).with_name("lm-eval"),
            "validate",
            "--include_path",
            str(PACK),
            "--tasks",
            ",".join(names()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All tasks found and valid" in done.stdout
