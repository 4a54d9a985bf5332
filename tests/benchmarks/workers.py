"""Work spread over processes of one thread: calls in, results out as they come.

It knows nothing of what is computed.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def spread(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int,
    start: Callable[..., None] | None = None,
    start_arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Call a function of a module on every task; results in no order.

    Args:
        function: What to call.
        tasks: Its arguments.
        processes: How many at once; one means this process.
        start: What every process calls once before its first task.
        start_arguments: Arguments of `start`.
    """
    if not tasks:
        return
    if processes == 1:
        if start is not None:
            start(*start_arguments)
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(
        min(processes, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(start, start_arguments),
    ) as pool:
        waiting = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _enter(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    import torch
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(1)
    disable_progress_bar()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """A parent that was killed says nothing, and its pool would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
