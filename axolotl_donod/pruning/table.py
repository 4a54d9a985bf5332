"""The files of a scoring run: takes columns and mappings, writes and reads them.

It knows nothing of models or of what the numbers mean.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from axolotl_donod.errors import DataError
from axolotl_donod.files import replacing, write_text

_REMEDY = "run `axolotl preprocess CONFIG` to write it again"

_NULLABLE = ("source", "source_row")
_SCHEMA = pa.schema(
    [
        ("row_hash", pa.string()),
        ("source", pa.string()),
        ("source_row", pa.int64()),
        ("n_tokens", pa.int64()),
        ("ce", pa.float64()),
        ("entropy", pa.float64()),
        ("w_dot_g", pa.float64()),
        ("g_norm_sq", pa.float64()),
        ("el2n", pa.float64()),
        ("token_accuracy", pa.float64()),
        ("don", pa.float64()),
        ("nod", pa.float64()),
        ("closeness", pa.float64()),
        ("rank", pa.int64()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),
    ]
)
SCORE_COLUMNS: tuple[str, ...] = tuple(_SCHEMA.names)


def row_hash(input_ids: ArrayLike, labels: ArrayLike) -> str:
    """Hash what the model sees of a row and what it is trained on.

    Args:
        input_ids: (S,) token ids.
        labels: (S,) labels.

    Returns:
        32 hexadecimal digits (blake2b, 16 bytes), the same on every machine.
    """
    digest = hashlib.blake2b(digest_size=16)
    for values in (input_ids, labels):
        array = np.asarray(values, dtype="<i8")
        # The length keeps ([1], [2, 3]) apart from ([1, 2], [3]).
        digest.update(array.size.to_bytes(8, "little"))
        digest.update(array.tobytes())
    return digest.hexdigest()


def dataset_fingerprint(row_hashes: Iterable[str]) -> str:
    """Hash the rows of a data set and their order into 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for value in row_hashes:
        digest.update(f"{value}\n".encode())
    return digest.hexdigest()


def write_scores(path: Path | str, columns: Mapping[str, Any]) -> None:
    """Write the score table as Parquet: whole or not at all, same bytes every time.

    Args:
        path: File to write; its folder is made.
        columns: Every name of `SCORE_COLUMNS` to n values; `source` and `source_row`
            may be left out or hold None.

    Raises:
        DataError: A column is missing, unknown, of another length or another type.
    """
    path = Path(path)
    missing = [n for n in SCORE_COLUMNS if n not in columns and n not in _NULLABLE]
    unknown = [name for name in columns if name not in SCORE_COLUMNS]
    if missing or unknown:
        raise DataError(
            f"{path}: score columns missing: {missing}, unknown: {unknown}; give "
            f"exactly {list(SCORE_COLUMNS)}"
        )
    n_rows = len(columns["row_hash"])
    arrays = []
    for field in _SCHEMA:
        values = columns.get(field.name)
        arrays.append(
            _column(path, field, [None] * n_rows if values is None else values)
        )
    if any(len(array) != n_rows for array in arrays):
        lengths = {n: len(a) for n, a in zip(SCORE_COLUMNS, arrays, strict=True)}
        raise DataError(f"{path}: score columns must have one length, got {lengths}")
    table = pa.Table.from_arrays(arrays, schema=_SCHEMA)
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def _column(path: Path, field: Any, values: Any) -> Any:
    try:
        array = pa.array(values, type=field.type, from_pandas=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{path}: column {field.name} must hold {field.type}: {error}"
        ) from error
    if array.null_count and field.name not in _NULLABLE:
        raise DataError(
            f"{path}: column {field.name} holds {array.null_count} nulls; write NaN "
            "for a score that does not exist"
        )
    return array


def read_scores(path: Path | str) -> dict[str, NDArray[Any]]:
    """Read a score table.

    Args:
        path: File written by `write_scores`.

    Returns:
        Every name of `SCORE_COLUMNS` to (n,) values; texts and the columns that may
        hold None are object arrays.

    Raises:
        DataError: The file is missing, corrupt or has other columns.
    """
    path = Path(path)
    _require(path)
    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable score table: {error}; {_REMEDY}"
        ) from error
    if not table.schema.equals(_SCHEMA):
        raise DataError(
            f"{path} has columns {table.schema.names} of other names or types than "
            f"{list(SCORE_COLUMNS)}; {_REMEDY}"
        )
    return {
        field.name: np.array(table[field.name].to_pylist(), dtype=object)
        if field.name in _NULLABLE or field.type == pa.string()
        else table[field.name].to_numpy()
        for field in _SCHEMA
    }


def write_manifest(path: Path | str, mapping: Mapping[str, Any]) -> None:
    """Write a manifest as JSON with sorted keys: whole or not at all.

    Args:
        path: File to write; its folder is made.
        mapping: Values that JSON can hold, and numpy scalars.

    Raises:
        DataError: A value that JSON cannot hold, such as NaN.
    """
    path = Path(path)
    try:
        text = json.dumps(
            mapping, sort_keys=True, indent=2, allow_nan=False, default=_plain
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the manifest holds a value that JSON cannot: {error}; write null "
            "for a number that does not exist"
        ) from error
    write_text(path, f"{text}\n")


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Read a manifest.

    Args:
        path: File written by `write_manifest`.

    Returns:
        Its mapping.

    Raises:
        DataError: The file is missing, or not a JSON object.
    """
    path = Path(path)
    _require(path)
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not readable JSON: {error}; {_REMEDY}") from error
    if not isinstance(mapping, dict):
        raise DataError(
            f"{path} holds a JSON {type(mapping).__name__}, not an object; {_REMEDY}"
        )
    return mapping


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__}")


def _require(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path} does not exist; {_REMEDY}")
