"""Where the task pack lies, in a checkout as in an installed wheel."""

from importlib.resources import files
from pathlib import Path


def pack_path() -> Path:
    """Return the folder to give lm-eval as `--include_path`."""
    return Path(str(files("axolotl_donod"))) / "evals"
