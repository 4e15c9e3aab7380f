"""Work spread over processes: results in order, a progress bar, and a clean shutdown."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    # Not fork: the caller may hold threads.
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(initializer, initial),
    )
    try:
        results = pool.map(work, items, chunksize=chunk)
        yield from progress(results, total=len(items), what=what)
    except BrokenProcessPool as error:
        raise ValueError(
            f"one of {workers} processes died, perhaps for lack of memory; give fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(initializer: Callable[..., None] | None, initial: tuple[Any, ...]) -> None:
    """Leave Ctrl-C to the parent process, which ends its workers, and get ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initializer is not None:
        initializer(*initial)


def progress(items: Iterable[Item], *, total: int, what: str) -> Iterable[Item]:
    """Show a progress bar while items are iterated, if errors go to a terminal.

    Args:
        items: The items.
        total: How many there are.
        what: Their name beside the bar.

    Returns:
        The same items.
    """
    from tqdm import tqdm

    bar: Iterable[Item] = tqdm(items, total=total, desc=what, file=sys.stderr, disable=None)
    return bar
