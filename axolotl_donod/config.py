"""The YAML sections `donod`, `aw_dpo` and `alignment` as pydantic trees.

Takes plain mappings, gives validated models; knows nothing of models, files or
Axolotl beyond the names of the keys.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SFT: Literal["sft"] = "sft"
ALIGNMENT: Literal["alignment"] = "alignment"


class Section(BaseModel):
    """A section of finite numbers in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ProbeConfig(Section):
    """The single gradient step on the output projection that DON and NOD measure."""

    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Step size of the probe. Unset: preset `paper` uses the training "
        "learning rate, preset `auto` derives it from the scored rows.",
    )
    weight_decay: float = Field(
        default=0.0, ge=0, description="L2 weight decay of the SGD probe step."
    )
    reduction: Literal["mean", "sum"] = Field(
        default="mean",
        description="How token losses add up to the loss of a row: mean makes NOD "
        "prefer long answers, sum short ones.",
    )


class ScoringConfig(Section):
    """How rows are scored; changes speed and memory, not the result's meaning."""

    batch_tokens: int = Field(
        default=4096,
        ge=1,
        description="Padded tokens per scoring batch; a longer row is a batch alone.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Precision of the model body; logits are always float32. "
        "`auto` follows the training config.",
    )


class CriterionWeights(Section):
    """Relative importance of the two TOPSIS criteria; they need not sum to one."""

    don: float = Field(default=0.5, ge=0, description="Weight of DON.")
    nod: float = Field(default=0.5, ge=0, description="Weight of NOD.")

    @model_validator(mode="after")
    def _one_positive(self) -> "CriterionWeights":
        if self.don + self.nod <= 0:
            raise ValueError(
                "donod.weights must have a positive sum, got don=0 and nod=0; "
                "give at least one criterion a weight"
            )
        return self


class CriterionGoals(Section):
    """Direction of the two criteria; the defaults are the published ones."""

    don: Literal["max", "min"] = Field(default="max", description="Goal of DON.")
    nod: Literal["max", "min"] = Field(default="min", description="Goal of NOD.")


class DonodConfig(Section):
    """Section `donod`: prune the SFT rows before training (arXiv 2504.14810)."""

    keep_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of the training rows to keep, in (0, 1]. Default 0.3 "
        "unless keep_rows is set.",
    )
    keep_rows: int | None = Field(
        default=None, ge=1, description="Number of rows to keep, instead of a share."
    )
    preset: Literal["paper", "auto"] = Field(
        default="auto",
        description="`paper`: probe with the training learning rate. `auto`: probe "
        "with ten times the 95 % quantile of the rows' crossover learning rates.",
    )
    normalization: Literal["vector", "minmax", "rank"] = Field(
        default="vector", description="How TOPSIS scales each criterion."
    )
    weights: CriterionWeights = Field(
        default_factory=CriterionWeights, description="TOPSIS criterion weights."
    )
    goals: CriterionGoals = Field(
        default_factory=CriterionGoals, description="TOPSIS criterion directions."
    )
    probe: ProbeConfig = Field(
        default_factory=ProbeConfig, description="The step that DON and NOD measure."
    )
    scoring: ScoringConfig = Field(
        default_factory=ScoringConfig, description="Speed and memory of scoring."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> "DonodConfig":
        if self.keep_fraction is not None and self.keep_rows is not None:
            raise ValueError(
                "donod.keep_fraction and donod.keep_rows exclude each other, got "
                f"{self.keep_fraction} and {self.keep_rows}; remove one"
            )
        if self.keep_fraction is None and self.keep_rows is None:
            self.keep_fraction = 0.3
        return self


class SegmentWeights(Section):
    """Weights of reasoning and answer for pairs without judge scores."""

    reasoning: float = Field(default=0.5, ge=0, le=1, description="Reasoning weight.")
    answer: float = Field(default=0.5, ge=0, le=1, description="Answer weight.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SegmentWeights":
        if abs(self.reasoning + self.answer - 1) > 1e-6:
            raise ValueError(
                "aw_dpo.default_weights must sum to 1, got "
                f"reasoning={self.reasoning} and answer={self.answer}"
            )
        return self


class AwDpoConfig(Section):
    """Section `aw_dpo`: Alignment-Weighted DPO (arXiv 2602.21346)."""

    mode: Literal["separate", "joint"] = Field(
        default="separate",
        description="`separate`: a weighted sum of one DPO loss per segment (the "
        "paper). `joint`: one DPO loss on the weighted sum of segment margins.",
    )
    scale: Literal["sum_one", "mean_one"] = Field(
        default="sum_one",
        description="Segment weights sum to 1 (the paper) or average to 1 (matches "
        "the gradient of DPO at the start). No effect in `joint`.",
    )
    epsilon: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Smoothing added to each harmfulness gap before normalising.",
    )
    alpha: float = Field(
        default=1.0, gt=0, description="Factor on the whole loss; Adam undoes it."
    )
    default_weights: SegmentWeights = Field(
        default_factory=SegmentWeights,
        description="Segment weights of pairs that carry no judge scores.",
    )


class AlignmentConfig(BaseModel):
    """Section `alignment`: the second stage; any Axolotl key overrides SFT's.

    Keys that are not ours are kept as given and validated by Axolotl when the
    stage starts.
    """

    model_config = ConfigDict(extra="allow")

    rl: Literal["dpo"] = Field(
        default="dpo", description="Preference method of the second stage."
    )
    aw_dpo: AwDpoConfig | None = Field(
        default=None, description="Align with AW-DPO; absent means stock DPO."
    )

    @property
    def overrides(self) -> dict[str, Any]:
        """The stock Axolotl keys of the section."""
        return dict(self.model_extra or {})


class StageInfo(Section):
    """Which stage of a chain a run is; the plugin writes it, users do not."""

    name: Literal["sft", "alignment"] = Field(description="Stage that runs.")
    root: str = Field(description="output_dir of the whole chain.")


class AxolotlDonodArgs(BaseModel):
    """The sections as Axolotl merges them into its own schema."""

    donod: DonodConfig | None = Field(
        default=None, description="Prune the SFT rows before training."
    )
    aw_dpo: AwDpoConfig | None = Field(
        default=None, description="Alignment-Weighted DPO in an `rl: dpo` run."
    )
    alignment: AlignmentConfig | None = Field(
        default=None, description="A second, preference stage after SFT."
    )
    donod_stage: StageInfo | None = Field(
        default=None, description="Set by the plugin: the stage of a chain."
    )


class Sections(BaseModel):
    """Our sections of one raw config; absent ones are None."""

    donod: DonodConfig | None = None
    aw_dpo: AwDpoConfig | None = None
    alignment: AlignmentConfig | None = None

    @property
    def empty(self) -> bool:
        """True when the config has no section of ours."""
        return self.donod is None and self.aw_dpo is None and self.alignment is None
