"""Columns of texts in JSON, JSONL, CSV and Parquet files and in data sets on the hub.

Takes a path, gives rows; knows nothing of what the texts are for.
"""

from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from axolotl_donod.errors import ConfigError, DataError

FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}


def read_table(
    path: str, key: str, name: str | None = None, split: str = "train"
) -> Any:
    """Load a file, or a data set of the hub.

    Args:
        path: The file, or the name on the hub.
        key: The configuration key that holds the path, for errors.
        name: Configuration of a data set on the hub.
        split: Its split; a file has none.

    Returns:
        A `datasets.Dataset`.

    Raises:
        ConfigError: There is no such file or data set.
        DataError: It cannot be read.
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is not None and "://" not in path and not Path(path).is_file():
        raise ConfigError(
            f"{key}: no file {path!r} under {Path.cwd()}; correct the path"
        )
    try:
        if kind is not None:
            return datasets.load_dataset(kind, data_files=path, split="train")
        return datasets.load_dataset(path, name, split=split)
    except DatasetGenerationError as error:
        cause = error.__cause__ or error
        raise DataError(f"{key}: {path} cannot be read: {cause}; mend it") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{key}: {path!r} cannot be loaded: {error}; give a file that ends in "
            f"{', '.join(FORMATS)}, or a data set on the hub that this machine reaches"
        ) from error


def column(table: Any, field: str, where: str) -> list[Any]:
    """Return the values of a column.

    Raises:
        ConfigError: There is no such column; names those that are there.
    """
    if field not in table.column_names:
        raise ConfigError(
            f"{where} has no column {field!r}, only {', '.join(table.column_names)}; "
            "correct `field`"
        )
    return list(table[field])
