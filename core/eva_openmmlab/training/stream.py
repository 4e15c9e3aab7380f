"""The training data as a function of a seed and a position, and workers that always end.

mmengine ties each augmentation to the random state of a worker, which cannot be restored. Here the
sampler numbers what it draws, a sample seeds all generators from (seed, number) before it is
loaded, and a run that continues skips what it has seen without loading it. No random state has to
be saved, and the number of workers changes nothing.
"""

from collections.abc import Callable, Iterator, Sized
from functools import partial
from itertools import count, islice
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from eva_runs.interruption import leave_signals_to_the_run
from eva_runs.seeding import seed_all

SAMPLE, STEP = range(2)  # what a random number is for: first part of its key
Draw = tuple[int, int]  # number in the stream; index of the sample
_KEPT = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "multiprocessing_context"),
    *("generator", "prefetch_factor", "persistent_workers"),
)


class NumberedSampler(Sampler[Draw]):
    """The draws of this process, numbered over all processes, without end.

    Args:
        sampler: Indexes of this process; a finite one is taken again for each epoch.
        rank: Rank of this process.
        processes: Number of processes of the run.
    """

    def __init__(self, sampler: Any, *, rank: int, processes: int) -> None:
        self.sampler, self.rank, self.processes = sampler, rank, processes
        self.start = 0

    def skip(self, draws: int) -> None:
        """Begin after this number of draws of this process."""
        self.start = draws

    def __iter__(self) -> Iterator[Draw]:
        numbers = count(self.rank, self.processes)
        return islice(zip(numbers, self._indexes(), strict=False), self.start, None)

    def __len__(self) -> int:
        return len(self.sampler)

    def _indexes(self) -> Iterator[int]:
        for epoch in count():
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)
            index = None
            for index in self.sampler:
                yield int(index)
            if index is None:
                raise ValueError("the training data have no samples for this process")


class NumberedDataset(Dataset[Any]):
    """Samples by draw; the number seeds whatever its transforms draw.

    Args:
        dataset: Data set by index; its other attributes are found here too.
        seed: The run's seed.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, draw: Draw) -> Any:
        number, index = draw
        seed_all(self.seed, SAMPLE, number)
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name in ("dataset", "seed"):  # not there yet, while a worker unpickles it
            raise AttributeError(name)
        return getattr(self.dataset, name)


class RunLoader(DataLoader[Any]):
    """A data loader whose workers leave signals to the run, and can be ended."""

    _running: Any = None

    def __iter__(self) -> Any:
        self._running = super().__iter__()
        return self._running

    def end_workers(self) -> None:
        """End the workers; they ignore SIGTERM, and the interpreter would wait for them."""
        getattr(self._running, "_shutdown_workers", lambda: None)()
        self._running = None


def run_loader(loader: DataLoader[Any]) -> RunLoader:
    """Rebuild a loader with workers for a run.

    Args:
        loader: Loader as mmengine builds it.
    """
    return RunLoader(loader.dataset, **_sampling(loader), **_settings(loader))


def numbered_loader(loader: DataLoader[Any], *, seed: int, rank: int, processes: int) -> RunLoader:
    """Rebuild a loader for training, with draws that are numbered and seeded.

    Args:
        loader: Loader as mmengine builds it, of a map-style data set in batches of one size.
        seed: The run's seed.
        rank: Rank of this process.
        processes: Number of processes of the run.

    Returns:
        The loader; its `sampler` is a `NumberedSampler`.

    Raises:
        ValueError: If samples cannot be numbered.
    """
    if loader.batch_size is None or not isinstance(loader.dataset, Sized):
        raise ValueError(
            "train_dataloader must have a batch_size and a data set with a length: with its own "
            "batch_sampler a run could not continue where it was"
        )
    return RunLoader(
        NumberedDataset(loader.dataset, seed),
        sampler=NumberedSampler(loader.sampler, rank=rank, processes=processes),
        batch_size=loader.batch_size,
        drop_last=loader.drop_last,
        **_settings(loader),
    )


def _sampling(loader: DataLoader[Any]) -> dict[str, Any]:
    if loader.batch_size is None:
        return {"batch_sampler": loader.batch_sampler}
    names = ("batch_size", "sampler", "drop_last")
    return {name: getattr(loader, name) for name in names}


def _settings(loader: DataLoader[Any]) -> dict[str, Any]:
    settings = {name: getattr(loader, name) for name in _KEPT}
    return settings | {"worker_init_fn": partial(_start_worker, then=loader.worker_init_fn)}


def _start_worker(worker: int, *, then: Callable[[int], None] | None) -> None:
    leave_signals_to_the_run(worker)
    if then is not None:
        then(worker)
