"""One function over many items in several processes, ended cleanly whatever happens to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    died: Callable[[Item], Result],
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with its result as they come.

    died: the result for an item that kills the process that works on it; the others go on.
    """
    from concurrent.futures.process import BrokenProcessPool

    left = dict.fromkeys(items)
    try:
        for item, result in _pooled(work, items, min(workers, len(items))):
            del left[item]
            yield item, result
        return
    except BrokenProcessPool:
        pass
    # The pool does not tell which item it died of: the rest go one by one into pools of their own.
    for item in left:
        try:
            yield from _pooled(work, [item], 1)
        except BrokenProcessPool:
            yield item, died(item)


def _pooled(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    import queue
    from concurrent.futures import Future, ProcessPoolExecutor

    with _held_interrupts() as interrupted:
        pool = ProcessPoolExecutor(workers, initializer=_depend_on_parent)
        done: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
        try:
            futures = {pool.submit(work, item): item for item in items}
            for future in futures:
                future.add_done_callback(done.put)
            left = len(futures)
            while left:
                if interrupted():
                    raise KeyboardInterrupt
                try:
                    future = done.get(timeout=0.1)
                except queue.Empty:
                    continue
                left -= 1
                yield futures[future], future.result()
        except BaseException:
            # Nothing was written, so nobody needs what the workers still compute.
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()
            manager = getattr(pool, "_executor_manager_thread", None)
            pool.shutdown(wait=False, cancel_futures=True)
            if manager is not None:  # else it may stumble over the end of the interpreter
                manager.join(timeout=2)
            raise
        pool.shutdown()


@contextlib.contextmanager
def _held_interrupts() -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C instead of raising it: inside a pool's locks, KeyboardInterrupt hangs it."""
    import signal
    import threading

    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _depend_on_parent() -> None:
    """Leave interrupts to the parent, and end with it: a pool's worker would wait for ever."""
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    import multiprocessing
    import os

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
