"""The chain SFT → alignment: which stage runs, its config, its marker, its model.

Takes a raw Axolotl config, gives the raw config of one ordinary stage; knows the
names of Axolotl's keys and its merge command, nothing of trainers or hooks.
"""

import copy
import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from axolotl_donod.config import ALIGNMENT, SFT, AlignmentConfig, StageInfo
from axolotl_donod.errors import ConfigError, StageError
from axolotl_donod.files import write_json, write_text
from axolotl_donod.merge import STAGE_FILE, trained_model

MARKER = "complete.json"
LOG_HISTORY = "log_history.json"

# What describes the SFT data, its packing or its starting point, and would be wrong
# for a second stage that starts from the SFT model.
_SFT_ONLY = (
    "datasets test_datasets val_set_size max_steps sample_packing eval_sample_packing "
    "sample_packing_eff_est sample_packing_group_size sample_packing_bin_size "
    "sample_packing_sequentially multipack_real_batches pad_to_sequence_len "
    "group_by_length train_on_inputs total_num_tokens total_supervised_tokens "
    "lora_model_dir base_model_config tokenizer_config revision_of_model "
    "resume_from_checkpoint donod alignment"
).split()
# May change between two runs of a chain without making its stages another's.
_FREE_PREFIXES = ("wandb_", "mlflow_", "comet_", "hub_", "dataloader_")
_FREE = frozenset(
    {"use_wandb", "use_mlflow", "use_comet", "axolotl_config_path", "dataset_num_proc"}
    | {
        "donod_stage",
        "plugins",
        "strict",
        "debug",
        "is_preprocess",
        "dataset_prepared_path",
    }
    | {"auto_resume_from_checkpoints", "resume_from_checkpoint", "save_total_limit"}
)
_CHECKPOINT_FILES = ("trainer_state.json", "optimizer.pt", "scheduler.pt")


@dataclass(frozen=True)
class Entry:
    """The stage to run now: its raw config, and whether the chain is complete."""

    config: dict[str, Any]
    complete: bool


def sft_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the raw config of the first stage of a chain."""
    config = plain(raw)
    config.pop("alignment")
    config.pop("hub_model_id", None)
    return _placed(config, raw, SFT)


def alignment_config(raw: Mapping[str, Any], base_model: str) -> dict[str, Any]:
    """Return the raw config of the second stage, starting from `base_model`.

    Stock keys under `alignment:` override those of the first stage; null removes.
    """
    alignment = AlignmentConfig.model_validate(plain(raw["alignment"]))
    config = {k: v for k, v in plain(raw).items() if k not in _SFT_ONLY}
    config |= {"rl": alignment.rl, "base_model": base_model} | alignment.overrides
    if alignment.aw_dpo is not None:
        config["aw_dpo"] = alignment.aw_dpo.model_dump()
    return _placed({k: v for k, v in config.items() if v is not None}, raw, ALIGNMENT)


def _placed(
    config: dict[str, Any], raw: Mapping[str, Any], stage: str
) -> dict[str, Any]:
    root = Path(raw["output_dir"])
    config["output_dir"] = str(root / stage)
    config["donod_stage"] = {"name": stage, "root": str(root)}
    config.setdefault("auto_resume_from_checkpoints", True)
    if config.get("wandb_name"):
        config["wandb_name"] = f"{config['wandb_name']}-{stage}"
    return config


def plain(value: Any) -> Any:
    """Deep-copy mappings into dicts, so that nothing of the host's type is shared."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return copy.deepcopy(value)


def enter(raw: Mapping[str, Any]) -> Entry:
    """Pick the first unfinished stage and make ready the model it starts from.

    Any command may call this, and every rank at once: one of them merges, the others
    wait and find it done.

    Args:
        raw: A raw Axolotl config with an `alignment` section.

    Raises:
        StageError: Merging the SFT adapter failed.
    """
    with _locked(raw):
        sft = sft_config(raw)
        if not _is_finished(sft):
            return Entry(sft, complete=False)
        alignment = alignment_config(raw, str(trained_model(sft)))
        return Entry(alignment, complete=_is_finished(alignment))


def begin(raw: Mapping[str, Any]) -> None:
    """Make the folder of the stage that `enter` picks ready for training.

    Every rank calls it before any of them trains. Checkpoints that cannot be resumed
    from are set aside, and the stage's config is kept beside its results.

    Raises:
        ConfigError: A stage has finished with another configuration.
    """
    with _locked(raw):
        sft = sft_config(raw)
        if not _is_finished(sft):
            _prepare(sft)
            return
        _refuse_another(sft)
        alignment = alignment_config(raw, str(trained_model(sft)))
        if not _is_finished(alignment):
            _prepare(alignment)
            return
        _refuse_another(alignment)


def _locked(raw: Mapping[str, Any]) -> FileLock:
    root = Path(raw["output_dir"])
    root.mkdir(parents=True, exist_ok=True)
    return FileLock(root / ".lock")


def _prepare(config: dict[str, Any]) -> None:
    set_aside_checkpoints(Path(config["output_dir"]))
    save_stage_config(config)


def _is_finished(config: Mapping[str, Any]) -> bool:
    return (Path(config["output_dir"]) / MARKER).is_file()


def _refuse_another(config: Mapping[str, Any]) -> None:
    """Compare a stage's config with the one its finished stage had."""
    marker = Path(config["output_dir"]) / MARKER
    before = json.loads(marker.read_text(encoding="utf-8"))["config"]
    now = _comparable(config)
    changed = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{marker.parent} holds a finished stage of another configuration: {key} "
            f"was {before.get(key)!r} and is {now.get(key)!r}"
            + (f" (also {', '.join(changed[1:])})" if changed[1:] else "")
            + "; choose another output_dir, or remove that folder to train it again"
        )


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in config.items()
        if key not in _FREE and not key.startswith(_FREE_PREFIXES)
    }
    as_json: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return as_json


def save_stage_config(config: Mapping[str, Any]) -> None:
    """Keep the raw config of a stage beside its results, as a plain Axolotl YAML.

    It is what `mark_complete` records and what the merge of an adapter reads.
    """
    kept = {k: v for k, v in plain(config).items() if k != "donod_stage"}
    text = yaml.safe_dump(kept, sort_keys=False)
    write_text(Path(config["output_dir"]) / STAGE_FILE, text)


def mark_complete(folder: Path) -> None:
    """Write the marker that a stage, its model saved, needs no more work."""
    config = yaml.safe_load((folder / STAGE_FILE).read_text("utf-8"))
    versions = {
        name: importlib.metadata.version(name)
        for name in ("axolotl-donod", "axolotl", "torch", "transformers", "trl", "peft")
    }
    write_json(
        folder / MARKER,
        {
            "config": _comparable(config),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions,
        },
    )


def finish(stage: StageInfo, *, adapter: bool, first_rank: bool) -> None:
    """Mark a trained stage complete on rank 0; the other ranks wait for the mark.

    Args:
        stage: The stage whose model is saved.
        adapter: Whether it trained an adapter, whose folder then holds no full model.
        first_rank: Whether this process writes the marker.

    Raises:
        StageError: The stage left no model, or the marker did not appear.
    """
    folder = Path(stage.root) / stage.name
    if not first_rank:
        wait_until_complete(folder)
        return
    weights = "adapter_model*" if adapter else "*.safetensors*"
    if not any(folder.glob(weights)):
        raise StageError(
            f"stage {stage.name} ended without {weights} in {folder}; the log above "
            "says why the model was not saved"
        )
    if adapter:
        # Axolotl saves a LoRA-wrapped model here after DPO, in names no loader knows.
        for path in folder.glob("model*.safetensors*"):
            path.unlink()
    mark_complete(folder)


def save_log(folder: str | Path, log_history: list[dict[str, Any]]) -> None:
    """Keep a stage's training log beside its model, for the summary."""
    write_json(Path(folder) / LOG_HISTORY, {"log_history": log_history})


def wait_until_complete(folder: Path, seconds: float = 3600) -> None:
    """Wait for the marker that rank 0 writes; ranks share the file system.

    Raises:
        StageError: The marker did not appear in time.
    """
    deadline = time.monotonic() + seconds
    while not (folder / MARKER).is_file():
        if time.monotonic() > deadline:
            raise StageError(
                f"rank 0 wrote no {folder / MARKER} within {seconds:.0f} s; is "
                "output_dir on a file system that all nodes share?"
            )
        time.sleep(0.2)


def set_aside_checkpoints(folder: Path) -> None:
    """Rename checkpoints that cannot be resumed from to `unusable-checkpoint-N`.

    A checkpoint that was being written when the run was killed lacks files; one of
    the last step would make the Trainer take a step more than an undisturbed run.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*")):
        if not _resumable(checkpoint):
            target = folder / f"unusable-{checkpoint.name}"
            shutil.rmtree(target, ignore_errors=True)
            checkpoint.rename(target)


def _resumable(checkpoint: Path) -> bool:
    if not all((checkpoint / name).is_file() for name in _CHECKPOINT_FILES):
        return False
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    except ValueError:
        return False
    return bool(state["global_step"] < state["max_steps"])


def run_again(environment: Mapping[str, str], port: int | None) -> None:
    """Replace this process by the same command, which then runs the next stage.

    The process keeps its id and its rank, so a launcher notices nothing; all memory,
    patches and devices of the finished stage are gone.

    Args:
        environment: The variables that this process was started with.
        port: A port of rank 0's node for the next rendezvous; None on one rank. The
            launcher's own store holds keys of the finished stage.
    """
    env = dict(environment)
    if port is not None:
        env |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)
