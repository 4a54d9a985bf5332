"""The YAML sections `aw_dpo` and `alignment`, and all sections together.

Takes plain mappings, gives validated models; knows nothing of models, files or
Axolotl beyond the names of the keys.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from axolotl_donod.donod_config import DonodConfig
from axolotl_donod.donod_parts import Section

SFT: Literal["sft"] = "sft"
ALIGNMENT: Literal["alignment"] = "alignment"
# Of a run that sets none; without a seed, scoring and resuming would not repeat.
DEFAULT_SEED = 42


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
