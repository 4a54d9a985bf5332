"""Settings of the judge `guard`: takes a mapping, gives them checked, with the preset.

Knows nothing of how a model is run.
"""

import re
from typing import Literal

from pydantic import Field, model_validator

from axolotl_donod.donod_parts import Section
from axolotl_donod.judges.guard_presets import PRESETS, GuardPreset
from axolotl_donod.judges.texts import has_slots

_CUSTOM = ("template", "pattern", "harmful", "harmless")


class GuardOptions(Section):
    """Settings of the judge `guard`."""

    model: str = Field(description="Name or folder of the guard model.")
    revision: str | None = Field(
        default=None, description="Commit or tag of the model at the hub."
    )
    preset: Literal["llama_guard", "wildguard", "sorry_bench", "custom"] = Field(
        description="How the model is asked and answers. `llama_guard` uses the "
        "model's own chat template; `custom` needs the next four keys."
    )
    template: str | None = Field(
        default=None,
        description="Text that the model continues, with {response} and maybe "
        "{prompt}; put in as the user's turn with `chat`.",
    )
    pattern: str | None = Field(
        default=None,
        description="Regular expression, with a group `verdict`, that is searched for "
        "in what the model writes, without regard to case.",
    )
    harmful: str | None = Field(
        default=None, min_length=1, description="Verdict for a harmful response."
    )
    harmless: str | None = Field(
        default=None, min_length=1, description="Verdict for any other response."
    )
    chat: bool = Field(
        default=False,
        description="Put a custom template into the model's chat template.",
    )
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Tokens that the model may write; unset, those of the preset, or "
        "32 with `custom`.",
    )
    max_chars: int = Field(
        default=16000,
        ge=200,
        description="Characters of a prompt or response; more are cut out of its "
        "middle, with a mark in their place.",
    )
    batch_size: int = Field(default=4, ge=1, le=1024, description="Texts at a time.")
    device: str = Field(
        default="auto", description="`auto` takes an accelerator if there is one."
    )

    @model_validator(mode="after")
    def _custom_is_whole(self) -> "GuardOptions":
        given = [key for key in _CUSTOM if getattr(self, key) is not None]
        if self.preset != "custom" and (given or self.chat):
            raise ValueError(
                f"{', '.join(given) or 'chat'} needs preset custom, got preset "
                f"{self.preset}; remove one"
            )
        if self.preset == "custom":
            self._check_custom()
        return self

    def _check_custom(self) -> None:
        missing = [key for key in _CUSTOM if getattr(self, key) is None]
        if missing:
            raise ValueError(f"preset custom needs {', '.join(missing)}; add it")
        if not has_slots(self.template or ""):
            raise ValueError(f"template must hold {{response}}, got {self.template!r}")
        try:
            groups = re.compile(self.pattern or "").groupindex
        except re.error as error:
            raise ValueError(
                f"pattern {self.pattern!r} is no regular expression: {error}"
            ) from error
        if "verdict" not in groups:
            raise ValueError(
                f"pattern must hold a group (?P<verdict>…), got {self.pattern!r}"
            )

    @property
    def asked(self) -> GuardPreset:
        """The preset, or what the custom keys make."""
        if self.preset != "custom":
            return PRESETS[self.preset]
        return GuardPreset(
            version="1",
            template=self.template,
            special_tokens=not self.chat,
            pattern=self.pattern or "",
            harmful=self.harmful or "",
            harmless=self.harmless or "",
            max_new_tokens=32,
        )
