"""What a pruning run left in its folder: takes the folder, gives columns and figures.

It knows nothing of pictures or pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.errors import DataError
from axolotl_donod.pruning.audit.audit import Audit, from_json
from axolotl_donod.pruning.donod import BoolArray, IntArray
from axolotl_donod.pruning.folder import AUDIT, CLONES, MANIFEST, SCORES
from axolotl_donod.pruning.table import (
    read_clones,
    read_manifest,
    score_names,
    score_table,
)

_REMEDY = "run `axolotl donod prune CONFIG` again"
# Of more rows, pictures and medians show a sample; counts are always of all rows.
SAMPLE_ROWS = 200_000
_NEEDED = (
    *("rows", "kept", "kept_tokens", "tokens", "reasons", "preset", "criteria"),
    *("learning_rate", "training_learning_rate", "crossover_median", "versions"),
    *("identity", "settings"),
)


@dataclass(frozen=True)
class Record:
    """The tables of a run.

    Attributes:
        table: The score table of n rows, n >= 1, as it lies on disk.
        manifest: What the manifest says, without the settings.
        settings: Section `donod` of the run.
        clones: Columns of the audit's m clones, None without audit.
        audit: What the audit says, None without audit.
    """

    table: pa.Table
    manifest: Mapping[str, Any]
    settings: DonodConfig
    clones: Mapping[str, NDArray[Any]] | None
    audit: Audit | None

    @cached_property
    def kept(self) -> BoolArray:
        """(n,) whether a row stays."""
        return self.column("kept")

    @cached_property
    def rank(self) -> IntArray:
        """(n,) place of a row, 1 is best."""
        return self.column("rank")

    @cached_property
    def n_tokens(self) -> IntArray:
        """(n,) trained tokens of a row."""
        return self.column("n_tokens")

    @cached_property
    def scores(self) -> list[str]:
        """Names of the numeric columns worth looking at, rankings last."""
        return [*score_names(self.table), "don", "nod", "closeness"]

    @cached_property
    def sample(self) -> IntArray:
        """Indices of at most `SAMPLE_ROWS` rows, ascending, the same every time."""
        n_rows = self.table.num_rows
        if n_rows <= SAMPLE_ROWS:
            return np.arange(n_rows)
        drawn = np.random.default_rng(0).choice(n_rows, SAMPLE_ROWS, replace=False)
        return np.sort(drawn)

    @cached_property
    def sampled(self) -> dict[str, NDArray[Any]]:
        """Numeric columns of the sampled rows."""
        return {name: self.column(name)[self.sample] for name in self.scores}

    def column(self, name: str) -> NDArray[Any]:
        """(n,) values of a numeric column."""
        values: NDArray[Any] = self.table[name].to_numpy()
        return values

    def codes(self, name: str) -> tuple[IntArray, list[str]]:
        """(n,) index of each row's text, -1 for none, and the texts."""
        merged = self.table[name].unify_dictionaries().combine_chunks()
        codes = merged.indices.fill_null(-1).to_numpy()
        return codes, merged.dictionary.to_pylist()


def read_record(folder: Path) -> Record:
    """Read what a run left behind.

    Raises:
        DataError: A file is missing, damaged, of other rows than the manifest's, or
            lacks something that a report shows.
    """
    manifest = read_manifest(folder / MANIFEST)
    if missing := [key for key in _NEEDED if key not in manifest]:
        raise DataError(f"{folder / MANIFEST} lacks {', '.join(missing)}; {_REMEDY}")
    table = score_table(folder / SCORES)
    if not 0 < table.num_rows == manifest["rows"]:
        raise DataError(
            f"{folder / SCORES} holds {table.num_rows} rows, {folder / MANIFEST} tells "
            f"of {manifest['rows']}; {_REMEDY}"
        )
    try:
        settings = DonodConfig.model_validate(manifest.pop("settings"))
    except ValidationError as error:
        raise DataError(f"{folder / MANIFEST}: settings: {error}; {_REMEDY}") from error
    # Files of an earlier run with an audit may still lie there.
    clones, audit = folder / CLONES, folder / AUDIT
    return Record(
        table,
        manifest,
        settings,
        read_clones(clones) if settings.audit.enabled and clones.exists() else None,
        _read_audit(audit) if settings.audit.enabled and audit.exists() else None,
    )


def _read_audit(path: Path) -> Audit:
    try:
        return from_json(read_manifest(path))
    except ValidationError as error:
        raise DataError(f"{path}: {error}; {_REMEDY}") from error
