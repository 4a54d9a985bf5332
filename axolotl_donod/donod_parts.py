"""The sections inside the YAML section `donod`, and what every section shares.

Takes plain mappings, gives validated models; knows nothing of models or files.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A section of finite numbers in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ProbeConfig(Section):
    """The step on the output projection that DON and NOD measure."""

    optimizer: Literal["sgd", "adam"] = Field(
        default="sgd",
        description="`sgd`: re-ranked at any step size without a model. `adam`: the "
        "first step of AdamW, G / (|G| + 1e-8), scored over the whole vocabulary.",
    )
    steps: int = Field(
        default=1,
        ge=1,
        le=100,
        description="SGD steps on the same row; more than one is scored at one step "
        "size and scored again when the step size changes.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Step size of the probe. Unset: preset `paper` uses the training "
        "learning rate, preset `auto` derives it from the scored rows.",
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="Weight decay of the probe: L2 for SGD, decoupled for Adam.",
    )
    reduction: Literal["mean", "sum"] = Field(
        default="mean",
        description="How token losses add up to the loss of a row: mean makes NOD "
        "prefer long answers, sum short ones.",
    )

    @model_validator(mode="after")
    def _one_step_of_adam(self) -> "ProbeConfig":
        if self.optimizer == "adam" and self.steps > 1:
            raise ValueError(
                f"donod.probe.steps must be 1 with optimizer adam, got {self.steps}; "
                "only the first step of Adam has a form without its state"
            )
        return self

    @property
    def closed_form(self) -> bool:
        """Whether the panel's own scalars give DON and NOD at any step size."""
        return self.optimizer == "sgd" and self.steps == 1


class ScoringConfig(Section):
    """How rows are scored; changes speed and memory, not the result's meaning."""

    batch_tokens: int = Field(
        default=4096,
        ge=1,
        description="Padded tokens per scoring batch; a longer row is a batch alone. "
        "Halved by itself when memory runs out.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Precision of the model body; logits are always float32. "
        "`auto` follows the training config.",
    )
    quantization: Literal["auto", "none", "8bit", "4bit"] = Field(
        default="auto",
        description="Weights of the model body in 8 or 4 bits (bitsandbytes). `auto` "
        "follows load_in_8bit and load_in_4bit of the training config.",
    )
    base_model: str | None = Field(
        default=None,
        description="A smaller model with the same tokenizer that scores in place of "
        "the one that is trained.",
    )
    ifd: bool = Field(
        default=False,
        description="Also score the answer without its prompt, for the "
        "instruction-following difficulty; up to twice the time.",
    )
    cache_path: str | None = Field(
        default=None,
        description="Folder of the score shards, which several runs may share. Unset: "
        "`donod/shards` under output_dir.",
    )


class AuditConfig(Section):
    """Corrupted clones of the user's own rows that test the ranking."""

    enabled: bool = Field(
        default=True,
        description="Score corrupted clones with the rows and report where they rank.",
    )
    fraction: float = Field(
        default=0.05, gt=0, le=1, description="Clones as a share of the rows."
    )
    min_rows: int = Field(default=48, ge=6, description="Least number of clones.")
    max_rows: int = Field(default=2000, ge=6, description="Greatest number of clones.")
    kinds: list[str] | None = Field(
        default=None,
        description="Names of the corruptions to use. Unset: all that are registered.",
    )
    min_auroc: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Stop the run when the chosen ranking's AUROC of clones against "
        "rows is lower.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "AuditConfig":
        if self.min_rows > self.max_rows:
            raise ValueError(
                f"donod.audit.min_rows must not exceed max_rows, got {self.min_rows} "
                f"and {self.max_rows}"
            )
        return self


class SelectionConfig(Section):
    """What else decides beside the rank."""

    source_quota: dict[str, float] = Field(
        default_factory=dict,
        description="Greatest share of the kept rows, per name in column "
        "`source`, that may come "
        "from it, in (0, 1].",
    )
    source_floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least share of each dataset's rows that is kept, best first.",
    )
    near_duplicates: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Jaccard similarity of token 5-grams from which two rows count as "
        "duplicates; the better ranked stays. Unset: none is looked for.",
    )
    diversity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Weight of diversity: how much a row loses for each better row of "
        "its topic cluster. 0 looks at the rank alone.",
    )

    @model_validator(mode="after")
    def _quotas_in_range(self) -> "SelectionConfig":
        for name, share in self.source_quota.items():
            if not 0 < share <= 1:
                raise ValueError(
                    f"donod.selection.source_quota[{name!r}] must be in (0, 1], got "
                    f"{share}"
                )
        return self
