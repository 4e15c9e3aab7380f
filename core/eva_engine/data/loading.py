"""Data that are indexed once, and data workers that ignore stop signals and end with the run."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from eva_data.progress import progress as shown
from eva_engine import distributed
from eva_runs.data_order import end_workers, guard_workers
from eva_runs.interruption import StopSignal, block_signals
from eva_runs.sharing import share

T = TypeVar("T")


class EvaluationInterruptedError(Exception):
    """An evaluation was given up on all processes, because one of them was asked to stop."""


def open_shared(open_data: Callable[[Path], T], output: Path) -> T:
    """Open data once on each machine; `open_data` takes a folder, beside the run's, for indexes."""
    beside = output.parent if os.access(output.parent, os.W_OK) else output
    return share(lambda: open_data(beside / "shard_indexes"))


@contextlib.contextmanager
def running_loader(loader: DataLoader[T]) -> Iterator[Iterator[T]]:
    """Iterate over a loader whose processes do not outlive the block.

    They ignore SIGTERM (`guard_workers`): Python, which sends it at its end, would wait for ever.
    """
    before = set(multiprocessing.active_children())
    stream: Iterator[T] | None = None
    try:
        with block_signals():  # the processes start so
            stream = iter(loader)
        yield stream
    finally:
        try:
            with contextlib.suppress(RuntimeError):  # one of them was killed
                end_workers(stream)
        finally:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()  # it is stuck, or was started by an `iter` that failed
                process.join()


@contextlib.contextmanager
def evaluation_loader(
    samples: Dataset[Any],
    *,
    workers: int,
    batch_size: int = 1,
    batches: Sequence[list[int]] | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    pin_memory: bool = False,
    progress: str | None = None,
    stop: StopSignal | None = None,
) -> Iterator[Iterable[Any]]:
    """Load the batches of an evaluation, each sample of this process's share once and in order.

    Its processes ignore the signals that stop a run, and end with the context. `batches` are the
    indexes of each, instead of `batch_size`; `progress` is the title of a bar in the first process.
    If `stop`, of a run, is requested on any process, the batches end, and so does the evaluation:
    on all processes, which enter this context alike.

    Raises:
        EvaluationInterruptedError: At the end, on a request to stop.
    """
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_size=batch_size if batches is None else 1,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
    )
    with running_loader(guard_workers(loader)) as stream:
        taken = takewhile(lambda _: stop is None or not stop.requested, stream)
        if progress is None or distributed.rank() > 0:
            yield taken
        else:
            yield shown(taken, total=len(loader), title=progress, unit="batch")
    if stop is not None and any(distributed.gather(stop.requested)):
        raise EvaluationInterruptedError
