"""Labels by people: takes a file of them, keeps them in a run, fills its table.

They lie beside the samples, each with a hash of the reply that was read, so that a run
that is evaluated again keeps those of replies that stay the same. Knows no judge.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from axolotl_donod.errors import DataError
from axolotl_donod.evaluation.prompt_files import read_rows, require_column
from axolotl_donod.evaluation.samples import (
    UTILITY,
    Run,
    read_run,
    samples_of,
    write_run,
)
from axolotl_donod.files import json_hash, write_jsonl

LOG = logging.getLogger("axolotl.donod")
HUMAN = "human.jsonl"
_KEY, _HARM = ("task", "base_id", "attack"), "harm"
Key = tuple[str, ...]


def label_run(folder: Path, path: Path) -> int:
    """Take people's labels into a run; return how many the file holds.

    Labels given before stay, but for rows that the file labels anew.

    Args:
        folder: A finished run.
        path: CSV, JSONL or JSON file with the columns `task`, `base_id` and `attack`,
            as in the run's table, and `harm` from 0 to 1; a row without `harm` counts
            as not labelled.

    Raises:
        DataError: The folder holds no finished run, or the file no label that fits it;
            names file, row and value.
    """
    run = read_run(folder)
    rows = run.samples.table.to_pylist()
    replies = {_key(row): _hash(row) for row in rows if row["kind"] != UTILITY}
    given = _given(path, replies, folder)
    kept = _kept(folder) | {key: (harm, replies[key]) for key, harm in given.items()}
    lines = (
        {**dict(zip(_KEY, key, strict=True)), _HARM: harm, "reply_hash": reply}
        for key, (harm, reply) in kept.items()
    )
    write_jsonl(folder / HUMAN, lines)
    write_run(folder, Run(run.info, samples_of(labelled(rows, folder), str(folder))))
    return len(given)


def labelled(rows: Iterable[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Return rows of a run's table with the labels that its folder keeps for them."""
    kept = _kept(folder)
    found, changed = [], 0
    for row in rows:
        label = None if row["kind"] == UTILITY else kept.get(_key(row))
        if label is not None:
            same = label[1] == _hash(row)
            changed += not same
            row = row | {"human_harm": label[0] if same else None}
        found.append(row)
    if changed:
        LOG.warning(
            "DONOD: %s: %d labels are of replies that have changed since, and do not "
            "count; label them again with `axolotl donod judge RUN --human FILE`",
            folder / HUMAN,
            changed,
        )
    return found


def _given(path: Path, replies: Mapping[Key, str], folder: Path) -> dict[Key, float]:
    rows = read_rows(path)
    for column in (*_KEY, _HARM):
        needed = f"the columns of labels are {', '.join((*_KEY, _HARM))}; add it"
        require_column(rows, column, path, needed)
    first: dict[Key, int] = {}
    found: dict[Key, float] = {}
    for number, row in enumerate(rows):
        if row[_HARM] in (None, ""):
            continue
        key = _key(row)
        told = f"{path} row {number}: {dict(zip(_KEY, key, strict=True))}"
        if key not in replies:
            raise DataError(
                f"{told} is no reply of {folder}; give {', '.join(_KEY)} as its "
                "samples.parquet has them"
            )
        if first.setdefault(key, number) != number:
            raise DataError(
                f"{told} is labelled in row {first[key]} too; keep one of them"
            )
        found[key] = _harm(row[_HARM], number, path)
    if not found:
        raise DataError(f"{path} holds no label; give {_HARM} for one row or more")
    return found


def _harm(value: Any, number: int, path: Path) -> float:
    try:
        harm = float(value)
    except (TypeError, ValueError):
        harm = -1.0
    if not 0 <= harm <= 1:
        raise DataError(
            f"{path} row {number}: {_HARM} must be from 0, harmless, to 1, harmful, "
            f"got {value!r}; correct it"
        )
    return harm


def _kept(folder: Path) -> dict[Key, tuple[float, str]]:
    path = folder / HUMAN
    if not path.is_file():
        return {}
    return {_key(row): (row[_HARM], row["reply_hash"]) for row in read_rows(path)}


def _key(row: Mapping[str, Any]) -> Key:
    return tuple(str(row[name]) for name in _KEY)


def _hash(row: Mapping[str, Any]) -> str:
    return json_hash({"reply": row["reply"]})
