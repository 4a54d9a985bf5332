"""Work in threads: takes a function and items, gives results as they come.

Knows nothing of the work.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_Done = queue.SimpleQueue[tuple[int, Any, Exception | None]]


def concurrently(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    stop: threading.Event,
) -> Iterator[tuple[int, Result]]:
    """Do work on items in threads; give results as they come, with their positions.

    Where one raises, `stop` is set. Once it is, by that or by whoever takes the
    results, no item is begun; what is still finished is given, and then the first
    error is raised. An interrupt waits for nothing; what is done is given first.
    """
    done: _Done = queue.SimpleQueue()
    errors: list[Exception] = []
    threads = _started(work, items, workers, stop, done)
    try:
        for _ in items:
            position, result, error = done.get()
            if error is None:
                yield position, result
            else:
                errors.append(error)
            if errors or stop.is_set():
                break
        for thread in threads:
            thread.join()
        yield from _finished(done, errors)
        if errors:
            raise errors[0]
    except KeyboardInterrupt:
        yield from _finished(done, errors)
        raise
    finally:
        stop.set()


def _started(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    stop: threading.Event,
    done: _Done,
) -> list[threading.Thread]:
    positions = iter(range(len(items)))
    lock = threading.Lock()

    def loop() -> None:
        while not stop.is_set():
            with lock:
                position = next(positions, None)
            if position is None:
                return
            try:
                done.put((position, work(items[position]), None))
            except Exception as error:
                # The first error is what stopped the others.
                done.put((position, None, error))
                stop.set()

    # As daemons they do not keep a run that is interrupted from ending.
    threads = [
        threading.Thread(target=loop, daemon=True)
        for _ in range(min(workers, len(items)))
    ]
    for thread in threads:
        thread.start()
    return threads


def _finished(done: _Done, errors: list[Exception]) -> Iterator[tuple[int, Any]]:
    """Results that nobody has taken yet; adds errors to those that came before."""
    while not done.empty():
        position, result, error = done.get()
        if error is None:
            yield position, result
        else:
            errors.append(error)
