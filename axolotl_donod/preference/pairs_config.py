"""The keys of `alignment.pairs`: prompts, sampling, judge, and which pairs are kept.

Takes a plain mapping, gives a validated model; knows nothing of models or files.
"""

from typing import Any, Literal

from pydantic import Field, field_validator

from axolotl_donod.donod_parts import Section
from axolotl_donod.judges.config import JudgeConfig
from axolotl_donod.preference.sampling_config import SamplingConfig

PAIRS_FOLDER, PAIRS_FILE = "pairs", "pairs.jsonl"

PromptKind = Literal["harmful", "benign"]


class PromptSet(Section):
    """Prompts of one data set, all of one kind."""

    path: str = Field(
        min_length=1,
        description="JSON, JSONL, CSV or Parquet file, or data set on the hub.",
    )
    name: str | None = Field(
        default=None, description="Configuration of a data set on the hub."
    )
    split: str = Field(
        default="train", min_length=1, description="Split of a data set on the hub."
    )
    field: str = Field(
        default="prompt", min_length=1, description="Column of the prompts, texts."
    )
    kind: PromptKind = Field(
        default="harmful",
        description="`harmful`: the less harmful response is chosen. `benign`: helping "
        "is chosen over refusing.",
    )
    where: dict[str, str] = Field(
        default_factory=dict,
        description="Take only rows that hold these values, by column.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Take at most so many prompts, the first."
    )


class EvaluationSet(Section):
    """Prompts that a trained model will be evaluated on."""

    path: str = Field(
        min_length=1,
        description="JSON, JSONL, CSV or Parquet file, or a folder of such files. "
        "Without any, all sets of the task pack count.",
    )
    field: str | None = Field(
        default=None,
        min_length=1,
        description="Column of the prompts; unset, it is found by its usual names.",
    )


class PairsConfig(Section):
    """Section `alignment.pairs`: pairs sampled from the SFT model and judged."""

    prompts: list[PromptSet] = Field(
        min_length=1, description="Data sets of prompts to sample answers for."
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="How answers are drawn."
    )
    judge: JudgeConfig | list[JudgeConfig] = Field(
        default_factory=lambda: JudgeConfig(name="rules"),
        description="The judge, or a list of judges whose mean counts. The default "
        "goes by patterns alone and is provisional.",
    )
    threshold: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Keep pairs whose harmfulness of the full response differs by "
        "more than this.",
    )
    pairing: Literal["best_worst", "all"] = Field(
        default="best_worst",
        description="`best_worst`: one pair per prompt, the widest. `all`: every pair "
        "above the threshold, the widest first, up to max_pairs_per_prompt.",
    )
    max_pairs_per_prompt: int = Field(
        default=4, ge=1, description="Greatest number of pairs of a prompt with `all`."
    )
    contamination: Literal["drop", "report", "off"] = Field(
        default="drop",
        description="What to do with prompts that stand in an evaluation set: leave "
        "them out, only list them, or do not look.",
    )
    similarity: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Jaccard similarity of character 5-grams from which a prompt "
        "counts as standing in an evaluation set; 1 asks for equal letters and digits.",
    )
    evaluation_sets: list[EvaluationSet] | None = Field(
        default=None,
        min_length=1,
        description="The evaluation sets to keep clear of; a path alone will do. "
        "Unset: all of the task pack, by `evaluation.data`.",
    )

    @field_validator("evaluation_sets", mode="before")
    @classmethod
    def _paths_alone(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"path": item} if isinstance(item, str) else item for item in value]

    @property
    def pairs_per_prompt(self) -> int:
        """How many pairs a prompt may give."""
        return 1 if self.pairing == "best_worst" else self.max_pairs_per_prompt

    def identity(self) -> dict[str, Any]:
        """The settings without those that other pairs could not come from."""
        drawn = self.sampling.identity()
        counts = {"samples", "max_prompt_tokens"}
        drawn |= self.sampling.model_dump(mode="json", include=counts)
        return self.model_dump(mode="json") | {"sampling": drawn}
