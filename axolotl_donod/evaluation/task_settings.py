"""What a run may set for the task pack: the key `donod` of lm-eval's `--metadata`."""

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from axolotl_donod.donod_parts import Section
from axolotl_donod.errors import ConfigError


class PromptFile(Section):
    """A CSV, JSONL or JSON file of prompts, and the names of its columns."""

    path: Path = Field(description="File, relative to the working directory.")
    prompt_column: str = Field(default="prompt", description="Column of the prompt.")
    id_column: str | None = Field(
        default=None, description="Column of an id; None counts the rows."
    )
    category_column: str | None = Field(
        default=None, description="Column of a category; None puts all in one."
    )


class TaskSettings(Section):
    """Data and seeds of the task pack; nothing set means the public data sets."""

    local_data: Path | None = Field(
        default=None,
        description="Folder with a folder for each data set, read in place of the Hub.",
    )
    prompts: PromptFile | None = Field(
        default=None,
        description="The user's harmful prompts, for the tasks `prompts_*`.",
    )
    benign: PromptFile | None = Field(
        default=None,
        description="Harmless prompts for the tasks `benign_*`; None takes XSTest's.",
    )
    styles: Path | None = Field(
        default=None,
        description="Folder of prompts that a model has put in other styles.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of attacks that draw.")
    think_opened: bool = Field(
        default=False,
        description="Whether the chat template opens `<think>` itself, so that a reply "
        "without `</think>` is reasoning that never closed.",
    )


def task_settings(given: Any) -> TaskSettings:
    """Read the key `donod` of the metadata.

    Raises:
        ConfigError: A key is unknown or a value out of range; names it.
    """
    try:
        return TaskSettings.model_validate(given or {})
    except ValidationError as error:
        told = "; ".join(
            f"metadata.donod{''.join(f'.{part}' for part in problem['loc'])}: "
            f"{problem['msg']}, got {problem['input']!r}"
            for problem in error.errors()
        )
        raise ConfigError(f"{told}; see evals/README.md for the keys") from error
