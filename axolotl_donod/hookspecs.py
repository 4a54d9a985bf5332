"""What a plugin of this package can give: pluggy specifications and their marker.

An installed package joins in with an entry point of group `axolotl_donod` that names a
module with functions marked by `hookimpl`; the built-ins use nothing else.
"""

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from axolotl_donod.evaluation.attacks.attack import Attack
    from axolotl_donod.judges.judge import JudgeKind
    from axolotl_donod.pruning.audit.corruptions import Corruption
    from axolotl_donod.pruning.scores import Score

PROJECT = "axolotl_donod"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_scores() -> "list[Score]":  # type: ignore[empty-body]
    """Give scores of rows, which rank, audit and report then know by name."""


@hookspec
def register_corruptions() -> "list[Corruption]":  # type: ignore[empty-body]
    """Give ways to spoil an answer, of which the audit then makes clones."""


@hookspec
def register_judges() -> "list[JudgeKind]":  # type: ignore[empty-body]
    """Give kinds of judges of harmfulness, which configs then know by name."""


@hookspec
def register_attacks() -> "list[Attack]":  # type: ignore[empty-body]
    """Give attacks on prompts, which evaluation tasks then know by name."""
