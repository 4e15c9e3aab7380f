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
    work: Callable[..., Result],
    items: Sequence[Item],
    *,
    workers: int,
    what: str,
    chunk: int = 32,
    shared: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yield `work(*shared, item)` of all items, in their order, with a progress bar on a terminal.

    Where the caller stops early or is interrupted, what has not begun is cancelled and the
    processes end. They ignore Ctrl-C, which is the caller's. One that dies is a ValueError.

    Args:
        work: A function of a module, or a `partial` of one.
        items: What it is called with.
        workers: Number of processes; with 1, or a single item, the work is done in this one.
        what: Name of the items beside the progress bar.
        chunk: Items that a process is given at once.
        shared: Values that each process is given once.
    """
    if workers == 1 or len(items) < 2:
        alone = functools.partial(work, *shared)
        yield from progress(map(alone, items), total=len(items), what=what)
        return
    pool = _spawned(workers, shared)
    try:
        results = pool.map(functools.partial(_with_shared, work), items, chunksize=chunk)
        yield from progress(results, total=len(items), what=what)
    except BrokenProcessPool as error:
        _kill(pool)
        raise _died_early(workers) from error
    finally:
        pool.shutdown(cancel_futures=True)


def map_blocks(
    look: Callable[[Any, range], Result], samples: Any, *, workers: int, what: str
) -> Iterator[Result]:
    """Yield, in order, what `look(samples, indexes)` finds out about each block of some samples."""
    count = len(samples)
    block = max(1, min(_BLOCK, count // (4 * workers)))
    blocks = [range(i, min(i + block, count)) for i in range(0, count, block)]
    yield from ordered_map(look, blocks, workers=workers, what=what, chunk=1, shared=(samples,))


def surviving_map(
    work: Callable[..., Result],
    items: Sequence[Item],
    *,
    workers: int,
    what: str,
    died: Callable[[Item], Result],
    shared: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yield results as `ordered_map` does, also if some items kill the process that works on them.

    A library in C that reads damaged files may end its process. Those items that were being worked
    on are then done once more, one by one, until it is known which of them it is: `died(item)` is
    its result. The work is always done in other processes.
    """
    results = _survived(functools.partial(_with_shared, work), items, workers, died, shared)
    yield from progress(results, total=len(items), what=what)


def _survived(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    died: Callable[[Item], Result],
    shared: tuple[Any, ...],
) -> Iterator[Result]:
    done = suspects = 0  # suspects are done one by one
    while done < len(items):
        ahead = 1 if suspects else 4 * workers
        end = min(len(items), done + suspects) if suspects else len(items)
        pool, started = _spawned(1 if suspects else workers, shared), False
        try:
            pool.submit(int).result()
            started = True
            waiting: deque[Future[Result]] = deque()
            while done < end:
                for item in items[done + len(waiting) : min(done + ahead, end)]:
                    waiting.append(pool.submit(work, item))
                result = waiting[0].result()
                waiting.popleft()
                done, suspects = done + 1, max(0, suspects - 1)
                yield result
        except BrokenProcessPool as error:
            _kill(pool)
            if not started:
                raise _died_early(workers) from error
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


def _died_early(workers: int) -> ValueError:
    return ValueError(
        f"one of {workers} processes died, perhaps for lack of memory; give fewer --workers"
    )


def _spawned(workers: int, shared: tuple[Any, ...]) -> ProcessPoolExecutor:
    """Start processes; not by fork, as the caller may hold threads."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=shared)


class _Process:
    """What this process was given once, for all of its work."""

    shared: tuple[Any, ...] = ()


def _begin(*shared: Any) -> None:
    """Leave Ctrl-C to the parent process, which ends its workers, and get ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Process.shared = shared
    if "torch" in sys.modules:  # one thread, as there are several processes
        sys.modules["torch"].set_num_threads(1)


def _with_shared(work: Callable[..., Result], item: Any) -> Result:
    return work(*_Process.shared, item)
