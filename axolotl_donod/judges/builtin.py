"""The judges that come with the package, given to the registry as any plugin's are."""

from axolotl_donod.hookspecs import hookimpl
from axolotl_donod.judges.classifier import KIND as CLASSIFIER
from axolotl_donod.judges.guard import KIND as GUARD
from axolotl_donod.judges.judge import JudgeKind
from axolotl_donod.judges.openai import KIND as OPENAI
from axolotl_donod.judges.rules import KIND as RULES


@hookimpl
def register_judges() -> list[JudgeKind]:
    """Give the built-in kinds of judges."""
    return [RULES, CLASSIFIER, GUARD, OPENAI]
