"""Prune a tokenised dataset: reuse or make its scores, rank, select, keep a record.

Takes rows, settings and a model to load when needed; gives the indices of the rows
to keep and writes scores.parquet and manifest.json. Knows nothing of Axolotl.
"""

import importlib.metadata
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import DataError
from axolotl_donod.pruning.model import ScoringModel
from axolotl_donod.pruning.panel import PANEL, Columns
from axolotl_donod.pruning.ranking import Ranking, rank_scores
from axolotl_donod.pruning.selection import Selection, select
from axolotl_donod.pruning.table import (
    dataset_fingerprint,
    read_manifest,
    read_scores,
    row_hash,
    write_manifest,
    write_scores,
)

LOG = logging.getLogger("axolotl.donod")
SCORES = "scores.parquet"
MANIFEST = "manifest.json"
SCORING_VERSION = 1
Trace = Callable[[], Mapping[str, tuple[str, int]]]


@dataclass(frozen=True)
class Scored:
    """The scores of n rows and where they came from."""

    row_hashes: list[str]
    columns: Columns
    sources: list[tuple[str, int] | None]
    identity: dict[str, Any]


def prune(
    rows: Any,
    settings: DonodConfig,
    *,
    folder: Path,
    model: ScoringModel,
    training_learning_rate: float,
    trace: Trace,
) -> NDArray[np.int64]:
    """Return the indices of the rows to keep, in row order.

    Every rank may call this at once: the first one scores, the others wait and
    reuse. Scores are made again only when rows, model or precision changed; budget,
    preset, weights and probe never need it.

    Args:
        rows: n tokenised rows with `input_ids` and `labels` (a `datasets.Dataset`).
        settings: Section `donod`.
        folder: Where scores and manifest are kept.
        model: What to score with; loaded only when scores are missing.
        training_learning_rate: η of preset `paper`.
        trace: Gives the source of each row hash; called only when rows are scored.

    Raises:
        DataError: There are no rows, or fewer than keep_rows.
        ScoringError: The model's head cannot be scored, or no row has a score.
    """
    if not len(rows):
        raise DataError("there are no training rows to prune; check `datasets:`")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        scored = _scores(rows, settings, folder, model, trace)
        ranking = rank_scores(
            scored.columns,
            settings,
            scored.identity["head_norm"],
            training_learning_rate,
        )
        selection = select(ranking, settings.keep_fraction, settings.keep_rows)
        _write(folder, settings, scored, ranking, selection)
    kept: NDArray[np.int64] = np.flatnonzero(selection.kept)
    if kept.size < selection.budget:
        LOG.warning(
            "DONOD: only %d of the %d rows to keep have a finite score; column reason "
            "of %s tells which rows have none",
            kept.size,
            selection.budget,
            folder / SCORES,
        )
    LOG.info(
        "DONOD: kept %d of %d rows (preset %s, η = %.3g, median η* = %.3g); scores "
        "and reasons are in %s",
        kept.size,
        len(rows),
        settings.preset,
        ranking.learning_rate,
        ranking.crossover_median,
        folder / SCORES,
    )
    return kept


def _scores(
    rows: Any,
    settings: DonodConfig,
    folder: Path,
    model: ScoringModel,
    trace: Trace,
) -> Scored:
    hashes = [row_hash(row["input_ids"], row["labels"]) for row in rows]
    identity = {
        "dataset": dataset_fingerprint(hashes),
        "model": model.fingerprint(),
        "scoring_version": SCORING_VERSION,
    }
    stored = _reusable(folder, hashes, identity)
    if stored is not None:
        LOG.info("DONOD: reusing the scores of %d rows in %s", len(hashes), folder)
        return stored
    found = trace()
    sources = [found.get(value) for value in hashes]
    LOG.info("DONOD: scoring %d rows with %s", len(hashes), model.name)
    started = time.monotonic()
    with model.loaded() as network:
        columns, head_norm = _forward(network, rows, settings, model)
    identity |= {
        "head_norm": head_norm,
        "model_name": model.name,
        "scored_rows": len(hashes),
        "scoring_seconds": round(time.monotonic() - started, 1),
    }
    return Scored(hashes, columns, sources, identity)


def _forward(
    network: Any, rows: Any, settings: DonodConfig, model: ScoringModel
) -> tuple[Columns, float]:
    from axolotl_donod.pruning.head import output_head
    from axolotl_donod.pruning.scorer import score_rows

    columns = score_rows(
        network,
        rows,
        batch_tokens=settings.scoring.batch_tokens,
        pad_token_id=model.tokenizer().pad_token_id or 0,
    )
    return columns, output_head(network).norm


def _reusable(
    folder: Path, hashes: list[str], identity: Mapping[str, Any]
) -> Scored | None:
    """Return the stored scores if they are those of these rows and this model."""
    try:
        manifest = read_manifest(folder / MANIFEST)
        table = read_scores(folder / SCORES)
    except DataError as error:
        if (folder / SCORES).exists() or (folder / MANIFEST).exists():
            LOG.warning("DONOD: scoring again: %s", error)
        return None
    known = manifest.get("identity", {})
    if any(known.get(key) != value for key, value in identity.items()):
        return None
    if list(table["row_hash"]) != hashes:
        return None
    columns = {name: table[name] for name in PANEL}
    pairs = zip(table["source"], table["source_row"], strict=True)
    sources = [None if name is None else (name, int(row)) for name, row in pairs]
    return Scored(hashes, columns, sources, known)


def _write(
    folder: Path,
    settings: DonodConfig,
    scored: Scored,
    ranking: Ranking,
    selection: Selection,
) -> None:
    if _known_identity(folder) != scored.identity:
        # Never the new scores beside the manifest of the old ones.
        (folder / MANIFEST).unlink(missing_ok=True)
    write_scores(
        folder / SCORES,
        dict(scored.columns)
        | {
            "row_hash": scored.row_hashes,
            "source": [source and source[0] for source in scored.sources],
            "source_row": [source and source[1] for source in scored.sources],
            "don": ranking.don,
            "nod": ranking.nod,
            "closeness": ranking.closeness,
            "rank": ranking.rank,
            "kept": selection.kept,
            "reason": selection.reason,
        },
    )
    write_manifest(folder / MANIFEST, _manifest(settings, scored, ranking, selection))


def _known_identity(folder: Path) -> Any:
    try:
        return read_manifest(folder / MANIFEST).get("identity")
    except DataError:
        return None


def _manifest(
    settings: DonodConfig, scored: Scored, ranking: Ranking, selection: Selection
) -> dict[str, Any]:
    reasons, counts = np.unique(selection.reason.astype(str), return_counts=True)
    return {
        "identity": scored.identity,
        "head_norm": scored.identity["head_norm"],
        "learning_rate": ranking.learning_rate,
        "crossover_median": _or_none(ranking.crossover_median),
        "crossover_q95": _or_none(ranking.crossover_q95),
        "rows": len(scored.row_hashes),
        "kept": int(selection.kept.sum()),
        "kept_tokens": int(scored.columns["n_tokens"][selection.kept].sum()),
        "tokens": int(scored.columns["n_tokens"].sum()),
        "reasons": dict(zip(reasons.tolist(), counts.tolist(), strict=True)),
        "settings": settings.model_dump(mode="json"),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("axolotl-donod", "torch", "transformers")
        },
    }


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
