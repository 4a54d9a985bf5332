"""The pairs that a config asks for: takes Axolotl's config, gives a task to make them.

Knows Axolotl's config and the folder layout, nothing of how pairs are made.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from axolotl.cli.config import load_cfg

from axolotl_donod import stages
from axolotl_donod.checks import read_raw, read_sections
from axolotl_donod.config import DEFAULT_SEED, AwDpoConfig, StageInfo
from axolotl_donod.datasets import starting_model
from axolotl_donod.errors import ConfigError
from axolotl_donod.evaluation.eval_config import EvaluationConfig
from axolotl_donod.evaluation.held_out import held_out_prompts
from axolotl_donod.preference.build import PairsTask
from axolotl_donod.preference.pairs_config import PAIRS_FOLDER


def pairs_task(cfg: Any) -> PairsTask:
    """Describe the pairs that the alignment stage of a chain trains on.

    Args:
        cfg: The stage's config as Axolotl validates it.

    Raises:
        ConfigError: The stage has pairs of its own.
    """
    stage = StageInfo.model_validate(cfg.donod_stage.to_dict())
    if stage.pairs is None:
        raise ConfigError("the stage has no `alignment.pairs:` to make pairs by")
    aw_dpo = AwDpoConfig.model_validate(cfg.aw_dpo.to_dict() if cfg.aw_dpo else {})
    given = cfg.evaluation.to_dict() if cfg.evaluation else {}
    data = EvaluationConfig.model_validate(given).data
    folder = Path(stage.root) / PAIRS_FOLDER
    return PairsTask(
        settings=stage.pairs,
        folder=folder,
        model=starting_model(cfg),
        epsilon=aw_dpo.epsilon,
        held_out=partial(held_out_prompts, data, folder / "held_out"),
    )


def task_of(path: Path) -> tuple[PairsTask, str]:
    """Describe the pairs that a config asks for, without training anything.

    Args:
        path: YAML file of an Axolotl config with `alignment.pairs`.

    Returns:
        The task, and what its model is: the finished SFT stage's, else base_model.

    Raises:
        ConfigError: The config is none, or has no `alignment.pairs`.
    """
    raw = read_raw(path)
    alignment = read_sections(raw).alignment
    if alignment is None or alignment.pairs is None:
        raise ConfigError(f"{path} has no `alignment.pairs:`; add it, see the README")
    model, what = stages.model_to_align(raw)
    stage = stages.alignment_config(raw, model)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.name
        plain.write_text(yaml.safe_dump(stage, sort_keys=False), encoding="utf-8")
        cfg = load_cfg(str(plain))
    cfg.seed = cfg.seed if cfg.seed is not None else DEFAULT_SEED
    return pairs_task(cfg), what
