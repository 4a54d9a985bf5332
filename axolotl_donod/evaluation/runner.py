"""Tasks on a model: takes a model and settings, gives a run's folder.

Knows lm-eval's API; nothing of configs, judges or statistics. Every rank computes all
numbers from all answers, and the first writes them.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable

from axolotl_donod.errors import DataError, EvaluationError
from axolotl_donod.evaluation.backend import EvalModel, ranks
from axolotl_donod.evaluation.eval_config import EvaluationConfig
from axolotl_donod.evaluation.hub_errors import (
    LOCAL_DATA,
    LOCAL_MODEL,
    explained_hub_errors,
)
from axolotl_donod.evaluation.human import labelled
from axolotl_donod.evaluation.pack import pack_path
from axolotl_donod.evaluation.responses import ResponseStore
from axolotl_donod.evaluation.resumable import ResumableLM
from axolotl_donod.evaluation.rows import sample_rows
from axolotl_donod.evaluation.run_info import run_info
from axolotl_donod.evaluation.samples import (
    RUN,
    UTILITY,
    Run,
    read_info,
    samples_of,
    write_run,
)
from axolotl_donod.evaluation.task_names import check_tasks, first_rows
from axolotl_donod.files import replacing, write_text
from axolotl_donod.pruning.waiting import tell_failure
from axolotl_donod.think import THINK_OPEN

LOG = logging.getLogger("axolotl.donod")
RESULTS, RESPONSES = "results.json", "responses"
_FILE_NAME = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Evaluation:
    """A finished run.

    Attributes:
        folder: Where its files are.
        asked: Requests that this process put to the model.
        seconds: Time from the start, loading included.
        safety: Whether it has replies to judge.
    """

    folder: Path
    asked: int
    seconds: float
    safety: bool


def evaluate(
    model: EvalModel, settings: EvaluationConfig, folder: Path
) -> Evaluation | None:
    """Run the tasks on a model; run again after a kill, it asks only what is missing.

    Args:
        model: What to load.
        settings: Tasks and decoding.
        folder: Where the run's files go; answers are kept in `responses` beside it.

    Returns:
        The run on the first rank, None on the others.

    Raises:
        EvaluationError: A task is unknown, its data cannot be had or has no rows, or
            the folder holds a run of tasks that are not among these.
        ConfigError: The backend is not there.
    """
    rank, _ = ranks()
    began = time.monotonic()
    with explained_hub_errors(f"the model {model.name}", LOCAL_MODEL):
        fingerprint = model.fingerprint()
    answers = folder.parent / RESPONSES / fingerprint
    try:
        if rank == 0:
            _refuse_other_tasks(folder, settings)
        lm = _wrapped(model, settings, answers)
        results = _evaluated(lm, model, settings)
    except Exception as error:
        tell_failure(answers, error)
        raise
    if rank:
        return None
    rows = _write(folder, results, lm, model, settings, fingerprint)
    safety = any(row["kind"] != UTILITY for row in rows)
    return Evaluation(folder, lm.asked, time.monotonic() - began, safety)


def _refuse_other_tasks(folder: Path, settings: EvaluationConfig) -> None:
    """Keep the rows of a finished run from being replaced by those of other tasks."""
    try:
        former = read_info(folder)
    except DataError:
        # Not there or not finished.
        return
    tasks: list[str] = former.settings.get("tasks", [])
    if lost := [name for name in tasks if name not in settings.tasks]:
        both = ",".join(dict.fromkeys([*tasks, *settings.tasks]))
        raise EvaluationError(
            f"{folder} holds a run of {', '.join(tasks)}, and one of "
            f"{', '.join(settings.tasks)} would replace its rows of {', '.join(lost)}; "
            f"give --tasks {both}, which asks nothing twice, or another --output"
        )
    if former.judge:
        LOG.info(
            "DONOD: %s was judged by %s and is judged anew by evaluation.judge; the "
            "verdicts stay, and `axolotl donod judge` with that judge asks none again",
            folder,
            former.judge,
        )


def _wrapped(
    model: EvalModel, settings: EvaluationConfig, answers: Path
) -> ResumableLM:
    # Before the weights load, so that a wrong name costs nothing.
    check_tasks(settings.tasks, task_manager(settings, model))
    with explained_hub_errors(f"the model {model.name}", LOCAL_MODEL):
        loaded = model.load()
    rank, world_size = ranks()
    return ResumableLM(
        loaded,
        ResponseStore(answers, rank),
        seed=settings.seed,
        rank=rank,
        world_size=world_size,
        chunk=model.chunk,
    )


def task_manager(settings: EvaluationConfig, model: EvalModel) -> TaskManager:
    """Return lm-eval's index of its tasks, this project's and the user's."""
    manager = copy(_index((str(pack_path()), *settings.include_path)))
    # As lm-eval's own command does, for tasks that ask for the model's name.
    manager.metadata = {**model.arguments, **settings.metadata}
    return manager


def _of_use(record: logging.LogRecord) -> bool:
    """Drop the hint that lm-eval repeats for every task whose data is a function's."""
    return "Custom kwargs can be passed" not in record.getMessage()


@cache
def _index(folders: tuple[str, ...]) -> TaskManager:
    """Read thousands of small files, once for all models."""
    return TaskManager(include_path=list(folders))


def _evaluated(
    lm: ResumableLM, model: EvalModel, settings: EvaluationConfig
) -> dict[str, Any]:
    template = settings.chat_template
    if template == "auto":
        template = bool(getattr(lm.inner.tokenizer, "chat_template", None))
    logging.getLogger("lm_eval.api.task").addFilter(_of_use)
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed")
    manager = task_manager(settings, model)
    data = f"the data of {', '.join(settings.tasks)}"
    with explained_hub_errors(data, LOCAL_DATA):
        results: dict[str, Any] = simple_evaluate(
            model=lm,
            model_args=model.arguments,
            tasks=list(settings.tasks),
            num_fewshot=settings.num_fewshot,
            batch_size=settings.batch_size,
            limit=settings.limit if isinstance(settings.limit, int) else None,
            samples=_rows(settings, manager),
            # The first rank's intervals are kept; they cost the others time.
            bootstrap_iters=0 if ranks()[0] else 100_000,
            system_instruction=settings.system_prompt,
            apply_chat_template=template,
            gen_kwargs=settings.decoding or None,
            task_manager=manager,
            fewshot_random_seed=settings.seed,
            **dict.fromkeys(seeds, settings.seed),
        )
    results["config"]["chat_template"] = template
    return results


def _rows(
    settings: EvaluationConfig, manager: TaskManager
) -> dict[str, list[int]] | None:
    if not isinstance(settings.limit, Mapping):
        return None
    return first_rows(settings.tasks, settings.limit, manager)


def _write(
    folder: Path,
    results: dict[str, Any],
    lm: ResumableLM,
    model: EvalModel,
    settings: EvaluationConfig,
    fingerprint: str,
) -> list[dict[str, Any]]:
    """Write a run's files; run.json, which makes it count as finished, comes last."""
    samples: Mapping[str, list[dict[str, Any]]] = results.pop("samples")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN).unlink(missing_ok=True)
    for old in folder.glob("samples_*.jsonl"):
        old.unlink()
    for task, logged in samples.items():
        # Kept as lm-eval writes them, so that its tools read them.
        _write_lines(folder / f"samples_{_FILE_NAME.sub('_', task)}.jsonl", logged)
    dumped = json.dumps(
        results, indent=2, default=handle_non_serializable, ensure_ascii=False
    )
    write_text(folder / RESULTS, dumped + "\n")
    turn = THINK_OPEN if settings.data.think_opened else ""
    better = results["higher_is_better"]
    found = sample_rows(samples, model.label, lm.truncated, better, turn)
    rows = labelled(found, folder)
    info = run_info(model, settings, results, samples, fingerprint)
    write_run(folder, Run(info, samples_of(rows, str(folder))))
    return rows


def _write_lines(path: Path, logged: list[dict[str, Any]]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as stream:
        for sample in logged:
            line = json.dumps(sample, default=handle_non_serializable)
            stream.write(line + "\n")
