"""The YAML section `donod` as a pydantic tree.

Takes plain mappings, gives validated models; knows nothing of models or files.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from axolotl_donod.donod_parts import (
    AuditConfig,
    ProbeConfig,
    ScoringConfig,
    Section,
    SelectionConfig,
)


class Criterion(Section):
    """One criterion of preset `panel`."""

    weight: float = Field(default=1.0, gt=0, description="Weight in TOPSIS.")
    goal: Literal["max", "min"] = Field(description="Which end is good.")


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
        "unless keep_rows or keep_tokens is set.",
    )
    keep_rows: int | None = Field(
        default=None, ge=1, description="Number of rows to keep, instead of a share."
    )
    keep_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Trained tokens to keep, instead of a share of the rows.",
    )
    preset: Literal["paper", "auto", "panel", "calibrated"] = Field(
        default="panel",
        description="`panel`: TOPSIS over `criteria`. `calibrated`: a regression on "
        "all scores, fitted to tell the audit's corrupted clones from the rows. "
        "`auto`: DON and NOD at ten times the 95 % quantile of the rows' crossover "
        "learning rates. `paper`: DON and NOD at the training learning rate.",
    )
    normalization: Literal["vector", "minmax", "rank"] = Field(
        default="vector", description="How TOPSIS scales each criterion."
    )
    weights: CriterionWeights = Field(
        default_factory=CriterionWeights,
        description="TOPSIS criterion weights of `paper` and `auto`.",
    )
    goals: CriterionGoals = Field(
        default_factory=CriterionGoals,
        description="TOPSIS criterion directions of `paper` and `auto`.",
    )
    criteria: dict[str, Criterion] | None = Field(
        default=None,
        description="Scores that preset `panel` fuses, each with `goal` and `weight`. "
        "Unset: ce and ce_std, low is good.",
    )
    probe: ProbeConfig = Field(
        default_factory=ProbeConfig, description="The step that DON and NOD measure."
    )
    scoring: ScoringConfig = Field(
        default_factory=ScoringConfig, description="Speed and memory of scoring."
    )
    audit: AuditConfig = Field(
        default_factory=AuditConfig,
        description="Corrupted clones of the rows that test the ranking.",
    )
    selection: SelectionConfig = Field(
        default_factory=SelectionConfig,
        description="What else decides beside the rank.",
    )
    report: bool = Field(
        default=True,
        description="Write an HTML and a Markdown report with pictures beside the "
        "scores; `axolotl donod report CONFIG` writes it later.",
    )

    @model_validator(mode="before")
    @classmethod
    def _budget_default(cls, values: Any) -> Any:
        budgets = ("keep_fraction", "keep_rows", "keep_tokens")
        if not isinstance(values, dict):
            return values
        given = {key: values[key] for key in budgets if values.get(key) is not None}
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(f'donod.{key}' for key in given)} exclude each other, "
                f"got {' and '.join(map(str, given.values()))}; remove one"
            )
        return values if given else {**values, "keep_fraction": 0.3}

    @model_validator(mode="after")
    def _fitting_preset(self) -> "DonodConfig":
        if self.criteria is not None and self.preset != "panel":
            raise ValueError(
                f"donod.criteria belongs to preset panel, got preset {self.preset}; "
                "set `preset: panel` or remove criteria"
            )
        if self.criteria is not None and not self.criteria:
            raise ValueError("donod.criteria must name a score, got an empty mapping")
        if self.preset == "calibrated" and not self.audit.enabled:
            raise ValueError(
                "donod.preset calibrated learns from the audit's clones, got "
                "audit.enabled false; enable the audit or choose another preset"
            )
        if (
            self.preset == "auto"
            and self.probe.steps > 1
            and not self.probe.learning_rate
        ):
            raise ValueError(
                f"donod.probe.steps {self.probe.steps} is scored at one step size, "
                "which preset auto only knows after scoring; set "
                "donod.probe.learning_rate or use preset paper"
            )
        return self

    @property
    def scored_with(self) -> dict[str, Any]:
        """What needs the rows again when it changes, by dotted key, as plain JSON.

        A probe with a closed form, and the audit's floor, are free to change.
        """
        scoring, audit, selection = self.scoring, self.audit, self.selection
        probe = None if self.probe.closed_form else self.probe
        return {
            "scoring.ifd": scoring.ifd,
            "scoring.base_model": scoring.base_model,
            "scoring.dtype": scoring.dtype,
            "scoring.quantization": scoring.quantization,
            "probe": probe and probe.model_dump(mode="json"),
            "audit": audit.model_dump(mode="json", exclude={"min_auroc"})
            if audit.enabled
            else None,
            "selection.near_duplicates": selection.near_duplicates,
            "selection.diversity": selection.diversity > 0,
        }
