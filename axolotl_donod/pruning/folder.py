"""The folder of a pruned data set: writes a decision, reads scores back.

Takes and gives scores and decisions; knows the names of the files and nothing of how
their contents came about.
"""

import importlib.metadata
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import DataError
from axolotl_donod.files import json_hash, write_json
from axolotl_donod.pruning.audit.audit import as_json
from axolotl_donod.pruning.decision import Decision, Scored, ScoredClones
from axolotl_donod.pruning.donod import IntArray
from axolotl_donod.pruning.selection import REASONS
from axolotl_donod.pruning.table import (
    hash_array,
    read_clones,
    read_manifest,
    score_names,
    score_table,
    write_clones,
    write_manifest,
    write_scores,
)

LOG = logging.getLogger("axolotl.donod")
SCORES = "scores.parquet"
CLONES = "clones.parquet"
MANIFEST = "manifest.json"
AUDIT = "audit.json"
_VERSIONS = ("axolotl-donod", "torch", "transformers")


def decision_digest(
    identity: Mapping[str, Any], settings: DonodConfig, training_learning_rate: float
) -> str:
    """Name a decision, in 32 digits, by all that it follows from.

    Args:
        identity: What the scores are made of and with; `head_norm` is left out, since
            it follows from the rest and only the rank that reads the scores knows it.
        settings: Section `donod`.
        training_learning_rate: Step size of preset `paper`.
    """
    parts = {
        "identity": {k: v for k, v in identity.items() if k != "head_norm"},
        "settings": settings.model_dump(mode="json"),
        "training_learning_rate": training_learning_rate,
        "versions": _versions(),
    }
    return json_hash(parts)


def write_decision(
    folder: Path,
    scored: Scored,
    decision: Decision,
    settings: DonodConfig,
    training_learning_rate: float,
    *,
    approved: bool,
) -> None:
    """Write score table, clones, audit and manifest, the manifest last.

    A manifest thus never stands beside the tables of another decision. What is not
    approved is kept to look at, but no rank trains on it.

    Raises:
        DataError: A file cannot be written as it should be.
    """
    digest = decision_digest(scored.identity, settings, training_learning_rate)
    (folder / MANIFEST).unlink(missing_ok=True)
    ranking, selection = decision.ranking, decision.selection
    none = np.full(ranking.rank.size, -1)
    groups, clusters = scored.duplicate_groups, scored.clusters
    write_scores(
        folder / SCORES,
        dict(scored.columns)
        | {
            "row_hash": scored.hashes,
            "source": scored.sources,
            "source_row": scored.source_rows,
            "don": ranking.don,
            "nod": ranking.nod,
            "closeness": ranking.closeness,
            "rank": ranking.rank,
            "kept": selection.kept,
            "reason": selection.reason_names(),
            "cluster": none if clusters is None else clusters,
            "duplicate_group": none if groups is None else groups,
        },
    )
    _write_audit(folder, scored, decision)
    manifest = _manifest(scored, decision, settings, training_learning_rate)
    manifest["decision"] = digest if approved else None
    write_manifest(folder / MANIFEST, manifest)


def _write_audit(folder: Path, scored: Scored, decision: Decision) -> None:
    if scored.clones is None:
        (folder / CLONES).unlink(missing_ok=True)
    if decision.audit is None or scored.clones is None:
        # Clones that are scored stay, so that the audit can be switched on again.
        (folder / AUDIT).unlink(missing_ok=True)
        return
    clones = scored.clones
    write_clones(
        folder / CLONES,
        dict(clones.columns)
        | {
            "row_hash": clones.hashes,
            "kind": clones.kinds,
            "parent": clones.parents,
            "closeness": decision.clone_closeness,
            "rank": decision.clone_rank,
        },
    )
    write_json(folder / AUDIT, as_json(decision.audit))


def _manifest(
    scored: Scored,
    decision: Decision,
    settings: DonodConfig,
    training_learning_rate: float,
) -> dict[str, Any]:
    ranking, selection = decision.ranking, decision.selection
    codes, counts = np.unique(selection.reason, return_counts=True)
    tokens = scored.columns["n_tokens"]
    calibration = decision.calibration
    return {
        "identity": dict(scored.identity),
        "head_norm": scored.identity["head_norm"],
        "preset": ranking.preset,
        "criteria": {
            name: {"goal": goal, "weight": weight}
            for name, (goal, weight) in ranking.criteria.items()
        },
        "learning_rate": _or_none(ranking.learning_rate),
        "training_learning_rate": training_learning_rate,
        "crossover_median": _or_none(ranking.crossover_median),
        "crossover_q95": _or_none(ranking.crossover_q95),
        "rows": int(tokens.size),
        "kept": int(selection.kept.sum()),
        "kept_tokens": int(tokens[selection.kept].sum()),
        "tokens": int(tokens.sum()),
        "reasons": {
            REASONS[code]: int(count) for code, count in zip(codes, counts, strict=True)
        },
        "calibration": None if calibration is None else calibration.as_json(),
        "settings": settings.model_dump(mode="json"),
        "versions": _versions(),
    }


def read_scored(folder: Path) -> Scored:
    """Read back what `write_decision` was given, to decide again without a model.

    Raises:
        DataError: A file is missing or damaged, or the files do not belong together.
    """
    manifest = read_manifest(folder / MANIFEST)
    table = score_table(folder / SCORES)
    if table.num_rows != manifest["rows"]:
        raise DataError(
            f"{folder / SCORES} has {table.num_rows} rows, but {folder / MANIFEST} "
            f"speaks of {manifest['rows']}; run `axolotl donod score CONFIG` again"
        )
    identity = manifest["identity"]
    scored_with = identity["scored_with"]
    groups = scored_with["selection.near_duplicates"] is not None
    topics = scored_with["selection.diversity"]
    return Scored(
        hashes=hash_array(table["row_hash"]),
        columns={name: table[name].to_numpy() for name in score_names(table)},
        sources=table["source"].to_pylist(),
        source_rows=table["source_row"].to_pylist(),
        duplicate_groups=table["duplicate_group"].to_numpy() if groups else None,
        clusters=table["cluster"].to_numpy() if topics else None,
        clones=_read_clones(folder),
        identity=identity,
    )


def _read_clones(folder: Path) -> ScoredClones | None:
    if not (folder / CLONES).exists():
        return None
    found = read_clones(folder / CLONES)
    return ScoredClones(
        hashes=found["row_hash"].astype("S32"),
        kinds=found["kind"],
        parents=found["parent"],
        columns={name: found[name] for name in score_names(found)},
    )


def known_sources(
    folder: Path, hashes: NDArray[np.bytes_], datasets: list[str]
) -> tuple[list[str | None], list[int | None]] | None:
    """Sources of rows from the score table of the same rows and datasets, or None."""
    try:
        table = score_table(folder / SCORES)
        named = read_manifest(folder / MANIFEST)["identity"].get("sources")
    except DataError as error:
        if (folder / SCORES).exists() and (folder / MANIFEST).exists():
            LOG.warning("DONOD: the score table is made again: %s", error)
        return None
    if named != datasets or not np.array_equal(hash_array(table["row_hash"]), hashes):
        return None
    return table["source"].to_pylist(), table["source_row"].to_pylist()


def recorded_decision(folder: Path, digest: str) -> IntArray | None:
    """Return the rows that a decision keeps, None if it is not written or damaged."""
    if _recorded_digest(folder) != digest:
        return None
    try:
        kept = score_table(folder / SCORES)["kept"].to_numpy()
    except DataError:
        return None
    return np.asarray(np.flatnonzero(kept), dtype=np.int64)


def _recorded_digest(folder: Path) -> str | None:
    try:
        digest: str | None = read_manifest(folder / MANIFEST).get("decision")
    except DataError:
        return None
    return digest


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
