"""Work spread over processes: results in order, a progress bar, and a clean shutdown."""

import functools
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from eva_data.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")
_BLOCK = 512  # samples that a process looks at at once


def ordered_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    what: str,
    chunk: int = 32,
    initializer: Callable[..., None] | None = None,
    initial: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yield `work(item)` of all items, in their order, with a progress bar on a terminal.

    Where the caller stops early or is interrupted, what has not begun is cancelled and the
    processes end. They ignore Ctrl-C, which is the caller's.

    Args:
        work: A function of a module, or a `partial` of one.
        items: What it is called with.
        workers: Number of processes; with 1, or a single item, the work is done in this one.
        what: Name of the items beside the progress bar.
        chunk: Items that a process is given at once.
        initializer: Function called first in each process that works.
        initial: Its arguments.

    Raises:
        ValueError: If a process dies.
    """
    if workers == 1 or len(items) < 2:
        if initializer is not None:
            initializer(*initial)
        yield from progress(map(work, items), total=len(items), what=what)
        return
    pool = _spawned(workers, initializer=initializer, initial=initial)
    try:
        results = pool.map(work, items, chunksize=chunk)
        yield from progress(results, total=len(items), what=what)
    except BrokenProcessPool as error:
        _kill(pool)
        raise ValueError(
            f"one of {workers} processes died, perhaps for lack of memory; give fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def map_blocks(
    look: Callable[[Any, range], Result], samples: Any, *, workers: int, what: str
) -> Iterator[Result]:
    """Yield what a function finds out about each block of some samples, in order.

    Args:
        look: A function of a module, or a `partial` of one, called with the samples and a block's
            indexes.
        samples: The samples, which have a length; each process is given them once.
        workers: Number of processes; with 1 the work is done in this one.
        what: Name beside the progress bar.

    Raises:
        ValueError: If a process dies.
    """
    count = len(samples)
    block = max(1, min(_BLOCK, count // (4 * workers)))
    blocks = [range(i, min(i + block, count)) for i in range(0, count, block)]
    work = functools.partial(with_shared, look)
    yield from ordered_map(
        work, blocks, workers=workers, what=what, chunk=1, initializer=share, initial=(samples,)
    )


class _Process:
    """What this process was given once, for all of its work."""

    shared: Any = None


def share(value: Any) -> None:
    """Keep a value in this process, for `with_shared`; an `initializer`."""
    _Process.shared = value
    if multiprocessing.parent_process() is not None and "torch" in sys.modules:  # one of several
        sys.modules["torch"].set_num_threads(1)


def with_shared(work: Callable[[Any, Item], Result], item: Item) -> Result:
    """Call a function with what this process shares, and an item."""
    return work(_Process.shared, item)


def surviving_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    what: str,
    died: Callable[[Item], Result],
    initializer: Callable[..., None] | None = None,
    initial: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yield `work(item)` of all items as `ordered_map` does, also if some of them kill a process.

    A library in C that reads damaged files may end its process. Those items that were being worked
    on are then done once more, one by one, until it is known which of them it is.

    Args:
        work: A function of a module, or a `partial` of one; it is always called in a process of
            its own.
        items: What it is called with.
        workers: Number of processes.
        what: Name of the items beside the progress bar.
        died: Function that gives the result of an item of which a process has died.
        initializer: Function called first in each process that works.
        initial: Its arguments.

    Raises:
        ValueError: If no process can be started.
    """
    pools = functools.partial(_spawned, initializer=initializer, initial=initial)
    results = _survived(work, items, workers=workers, died=died, pools=pools)
    yield from progress(results, total=len(items), what=what)


def _survived(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    died: Callable[[Item], Result],
    pools: Callable[[int], ProcessPoolExecutor],
) -> Iterator[Result]:
    done = suspects = 0  # suspects are done one by one
    while done < len(items):
        ahead = 1 if suspects else 4 * workers
        end = min(len(items), done + suspects) if suspects else len(items)
        pool = pools(1 if suspects else workers)
        try:
            _require_running(pool)
            waiting: deque[Future[Result]] = deque()
            while done < end:
                for item in items[done + len(waiting) : min(done + ahead, end)]:
                    waiting.append(pool.submit(work, item))
                result = waiting[0].result()
                waiting.popleft()
                done, suspects = done + 1, max(0, suspects - 1)
                yield result
        except BrokenProcessPool:
            _kill(pool)
            if suspects:
                yield died(items[done])
                done, suspects = done + 1, suspects - 1
            else:
                suspects = ahead
        finally:
            pool.shutdown(cancel_futures=True)


def _kill(pool: ProcessPoolExecutor) -> None:
    """End what a broken pool has left: it was seen to wait for a process that waited for work."""
    for process in list((pool._processes or {}).values()):
        process.kill()


def _require_running(pool: ProcessPoolExecutor) -> None:
    try:
        pool.submit(int).result()
    except BrokenProcessPool as error:
        raise ValueError(
            "a process died before it began to work, perhaps for lack of memory; give fewer "
            "--workers"
        ) from error


def _spawned(
    workers: int, *, initializer: Callable[..., None] | None, initial: tuple[Any, ...]
) -> ProcessPoolExecutor:
    """Start processes; not by fork, as the caller may hold threads."""
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(initializer, initial),
    )


def _begin(initializer: Callable[..., None] | None, initial: tuple[Any, ...]) -> None:
    """Leave Ctrl-C to the parent process, which ends its workers, and get ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initializer is not None:
        initializer(*initial)
