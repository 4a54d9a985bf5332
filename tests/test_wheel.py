"""A wheel of the project: holds the whole task pack, and works away from a checkout."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

from tests.task_pack_cases import ROWS, write_prompts

ROOT = Path(__file__).resolve().parents[1]
LOAD = """
import json, sys
from lm_eval.tasks import TaskManager, get_task_dict
import axolotl_donod
manager = TaskManager(
    include_path=sys.argv[1],
    include_defaults=False,
    metadata={"donod": {"local_data": sys.argv[2]}},
)
tasks = get_task_dict(["advbench_caesar"], manager)
rows = len(tasks["advbench_caesar"].eval_docs)
print(json.dumps([axolotl_donod.__file__, manager.all_tasks, rows]))
"""


def pack_files():
    """Every file of the task pack but what Python has compiled."""
    found = (path for path in (ROOT / "evals").rglob("*") if path.is_file())
    return {
        f"axolotl_donod/{path.relative_to(ROOT)}"
        for path in found
        if "__pycache__" not in path.parts
    }


def in_site(site, *arguments):
    """Run Python away from the checkout, with the unpacked wheel before all else."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=site.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build from a copy, so that the checkout stays as it is."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed here")
    # Older releases cannot read the licence of pyproject.toml.
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip(f"setuptools {version('setuptools')} is older than 77")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("axolotl_donod", "evals"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    options = "--no-deps --no-build-isolation --no-index --wheel-dir dist .".split()
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_pack(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert pack_files() - names == set()
    assert {name for name in names if name.startswith("axolotl_donod/evals/")} == (
        pack_files()
    )


def test_the_pack_of_an_installed_wheel_is_found_and_runs(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    printed = in_site(site, "-m", "axolotl_donod.cli", "tasks-path")
    assert Path(printed) == site / "axolotl_donod" / "evals"
    write_prompts(tmp_path / "data")
    loaded = in_site(site, "-c", LOAD, printed, tmp_path / "data")
    source, names, rows = json.loads(loaded)
    assert Path(source).is_relative_to(site)
    here = TaskManager(include_path=str(ROOT / "evals"), include_defaults=False)
    assert set(names) == set(here.all_tasks)
    assert rows == ROWS
