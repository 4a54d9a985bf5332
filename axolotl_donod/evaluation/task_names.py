"""Tasks by name: refuses those that lm-eval does not know, counts the rows to take."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval.tasks import get_task_dict

from axolotl_donod.errors import EvaluationError


def check_tasks(tasks: Sequence[str], manager: Any) -> None:
    """Look tasks up before anything is loaded.

    Args:
        tasks: Names of tasks, groups or tags, or patterns of them with `*`.
        manager: lm-eval's TaskManager.

    Raises:
        EvaluationError: A name that is none; suggests a close one.
    """
    known = list(manager.all_tasks)
    for name in tasks:
        if manager.match_tasks([name]):
            continue
        close = difflib.get_close_matches(name, known, n=3)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise EvaluationError(
            f"evaluation.tasks: lm-eval knows no task or group {name!r}{meant or ';'} "
            "`lm-eval ls tasks` lists its own, and `axolotl donod tasks-path` says "
            "where this project's lie"
        )


def first_rows(
    tasks: Sequence[str], limits: Mapping[str, int], manager: Any
) -> dict[str, list[int]]:
    """Return the numbers of the rows to take, by task; none for a task without limit.

    Args:
        tasks: Names of tasks and groups to run.
        limits: Rows to take by name of a task, or of a group for each task in it; the
            closest name counts.
        manager: lm-eval's TaskManager.

    Raises:
        EvaluationError: A limit of what is not run.
    """
    found = list(_leaves(get_task_dict(list(tasks), manager), ()))
    known = {name for names, _ in found for name in names}
    if unused := sorted(set(limits) - known):
        raise EvaluationError(
            f"evaluation.limit names {', '.join(unused)}, which the tasks "
            f"{', '.join(tasks)} do not run; they run {', '.join(sorted(known))}"
        )
    rows = {}
    for names, task in found:
        limit = next((limits[name] for name in reversed(names) if name in limits), None)
        if limit is not None:
            rows[names[-1]] = list(range(min(limit, len(task.eval_docs))))
    return rows


def _leaves(
    tree: Mapping[Any, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Tasks of lm-eval's tree, each with the names of its groups and its own."""
    for key, value in tree.items():
        names = (*above, str(getattr(key, "group_name", key)))
        if isinstance(value, Mapping):
            yield from _leaves(value, names)
        else:
            yield (*above, str(value.task_name)), value
