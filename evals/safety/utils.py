"""What the YAMLs of the safety tasks call; all of it lives in the package."""

from axolotl_donod.evaluation.prompt_tasks import prompt_dataset
from axolotl_donod.evaluation.task_metrics import reply_shares
from axolotl_donod.evaluation.views import answer_view, full_view, reasoning_view

__all__ = [
    "answer_view",
    "full_view",
    "prompt_dataset",
    "reasoning_view",
    "reply_shares",
]
