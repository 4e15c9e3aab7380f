"""Work spread over processes: results in order, a progress bar, and a clean shutdown."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from eva_data.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")
_BLOCK = 512  # samples that a process looks at at once
_AHEAD = 4  # chunks for each process that wait or are done
_PATIENCE = 0.2  # seconds that Ctrl-C waits at most
_SECONDS = 1.0  # between looks at the parent process


def ordered_map(
    work: Callable[..., Result],
    items: Sequence[Item],
    *,
    workers: int,
    title: str,
    chunk: int = 32,
    shared: tuple[Any, ...] = (),
    died: Callable[[Item], Result] | None = None,
) -> Iterator[Result]:
    """Yield `work(*shared, item)` of all items, in their order, with a progress bar on a terminal.

    `work` is a function of a module, or a `partial` of one. With one worker, or a single item, it
    is done in this process; else each process is given `shared` once and `chunk` items at a time.
    Where the caller stops early or is interrupted, what has not begun is cancelled and the
    processes end. They ignore Ctrl-C, which is the caller's. One that dies is a ValueError.

    A library in C that reads damaged files may end its process. With `died`, the items that were
    being worked on are then done once more, one by one, until it is known which of them it is:
    `died(item)` is its result. The work is always done in other processes then.
    """
    if died is None and (workers == 1 or len(items) < 2):
        results: Iterator[Result] = map(functools.partial(work, *shared), items)
    else:
        results = _spread(work, items, workers, 1 if died else chunk, shared, died)
    yield from progress(results, total=len(items), title=title) if len(items) > 1 else results


def map_blocks(
    look: Callable[[Any, range], Result], samples: Any, *, workers: int, title: str
) -> Iterator[Result]:
    """Yield, in order, what `look(samples, indexes)` finds out about each block of some samples."""
    count = len(samples)
    block = max(1, min(_BLOCK, count // (4 * workers)))
    blocks = [range(i, min(i + block, count)) for i in range(0, count, block)]
    yield from ordered_map(look, blocks, workers=workers, title=title, chunk=1, shared=(samples,))


def _spread(
    work: Callable[..., Result],
    items: Sequence[Item],
    workers: int,
    chunk: int,
    shared: tuple[Any, ...],
    died: Callable[[Item], Result] | None,
) -> Iterator[Result]:
    chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    done = 0
    while done < len(chunks):
        try:
            for results in _run_chunks(work, chunks[done:], workers, shared):
                done += 1
                yield from results
        except BrokenProcessPool as error:
            if died is None:
                raise ValueError(
                    f"one of {workers} processes died, perhaps for lack of memory; give fewer "
                    "--workers"
                ) from error
            for suspect in chunks[done : done + _AHEAD * workers]:
                try:
                    (results,) = _run_chunks(work, [suspect], 1, shared)
                    yield from results
                except BrokenProcessPool:
                    yield died(suspect[0])
                done += 1


def _run_chunks(
    work: Callable[..., Result], chunks: list[Sequence[Any]], workers: int, shared: tuple[Any, ...]
) -> Iterator[list[Result]]:
    processes = min(workers, len(chunks))
    spawn = multiprocessing.get_context("spawn")  # the caller may hold threads
    pool = ProcessPoolExecutor(processes, spawn, initializer=_begin, initargs=shared)
    try:
        for first in [_submit(pool, int) for _ in range(processes)]:  # starts all of them
            _result_of(first)
        waiting: deque[Future[list[Result]]] = deque()
        for chunk in chunks:
            waiting.append(_submit(pool, _with_shared, work, chunk))
            if len(waiting) == _AHEAD * workers:
                yield _result_of(waiting.popleft())
        while waiting:
            yield _result_of(waiting.popleft())
    except BrokenProcessPool:
        for process in list((pool._processes or {}).values()):  # it may wait for work
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupt_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a block, as in the threads and processes that begin in it."""
    handler: Any = signal.getsignal(signal.SIGINT)
    noted: list[Any] = []
    # a thread that is there already may take the signal, and the main one would be interrupted
    defers = callable(handler) and threading.current_thread() is threading.main_thread()
    if defers:
        signal.signal(signal.SIGINT, lambda *arguments: noted.append(arguments))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if defers:
            signal.signal(signal.SIGINT, handler)
        for arguments in noted:
            handler(*arguments)


def _submit(pool: ProcessPoolExecutor, work: Callable[..., Any], *args: Any) -> Future[Any]:
    """Submit work, for which a process may start: interrupted there, it would print a traceback."""
    with _interrupt_later():
        return pool.submit(work, *args)


def _result_of(future: Future[Any]) -> Any:
    """Wait for a result; an interrupt inside would leave the lock of the future closed for ever."""
    while True:
        with _interrupt_later():
            if wait([future], timeout=_PATIENCE).done:
                return future.result()


class _Process:
    """What this process was given once, for all of its work."""

    shared: tuple[Any, ...] = ()


def _begin(*shared: Any) -> None:
    """Leave Ctrl-C to the parent process, which ends its workers, and get ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(lambda: os._exit(1))
    _Process.shared = shared
    if "torch" in sys.modules:  # one thread, as there are several processes
        sys.modules["torch"].set_num_threads(1)


def _with_shared(work: Callable[..., Result], items: Sequence[Any]) -> list[Result]:
    return [work(*_Process.shared, item) for item in items]


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end` soon after the end of the process that started this one, however it ended.

    It may be gone already, or a server may have forked for it: the pipe to it is watched, too.
    """
    parent, above = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        while os.getppid() == above and (parent is None or parent.is_alive()):
            time.sleep(_SECONDS)
        end()

    threading.Thread(target=watch, daemon=True).start()
