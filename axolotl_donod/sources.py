"""Where each prepared row came from: dataset and row number, found by content.

Takes Axolotl's config, gives a lookup from a row's content hash to its source. The
datasets are tokenised a second time, one by one and in their own order, because
Axolotl shuffles, splits, filters and caches rows without keeping track of them.
"""

from typing import Any

from axolotl.loaders import load_processor, load_tokenizer
from axolotl.utils.data import sft
from axolotl.utils.data.shared import datasets_with_name_generator

from axolotl_donod.pruning.table import row_hash

Source = tuple[str, int]


def trace_sources(cfg: Any) -> dict[str, Source]:
    """Map row hashes to (dataset, row number counted from 0).

    Of equal rows the first is named. Rows that Axolotl truncates are found by their
    first sequence_len tokens.
    """
    names = source_names(cfg)
    tokenizer = load_tokenizer(cfg)
    processor = load_processor(cfg, tokenizer) if cfg.processor_type else None
    found: dict[str, Source] = {}
    entries = datasets_with_name_generator(cfg.datasets)
    for dataset_cfg, name in zip(entries, names, strict=True):
        rows, _ = sft._load_and_process_single_dataset(
            dataset_config=dataset_cfg,
            cfg=cfg,
            tokenizer=tokenizer,
            split="train",
            seed=cfg.seed,
            processor=processor,
        )
        for number, row in enumerate(rows.select_columns(["input_ids", "labels"])):
            ids, labels = row["input_ids"], row["labels"]
            whole = row_hash(ids, labels)
            cut = row_hash(ids[: cfg.sequence_len], labels[: cfg.sequence_len])
            for key in (whole, cut):
                found.setdefault(key, (name, number))
    return found


def source_names(cfg: Any) -> list[str]:
    """Name the datasets of a config: path and name, and the split where they repeat."""
    entries = list(datasets_with_name_generator(cfg.datasets))
    short = [_joined(entry.path, entry.name) for entry in entries]
    return [
        name if short.count(name) == 1 else _joined(name, entry.split)
        for name, entry in zip(short, entries, strict=True)
    ]


def _joined(*parts: Any) -> str:
    return ":".join(str(part) for part in parts if part)
