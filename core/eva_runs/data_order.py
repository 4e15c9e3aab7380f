"""Order of the data of a training: a function of seed and step, so that it continues anywhere.

A sample's augmentation is seeded by epoch and index: it does not depend on the process, worker or
batch that the sample falls into, and no random state has to be saved.
"""

import logging
import os
import random
import resource
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.queues import Queue
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np
import torch
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from eva_runs import processes
from eva_runs.commands import print_error
from eva_runs.errors import TooManyUnreadableError, single_line_message
from eva_runs.interruption import ignore_signals_in_worker

logger = logging.getLogger(__name__)

_ATTEMPTS = 20  # replacements in a row for one sample
_SHOWN = 10  # names in a message
TIMEOUT = 1800.0  # seconds to wait for a batch; collectives of PyTorch wait as long
# What reading a damaged or missing file raises (`UnreadableImageError` is an OSError); anything
# else is a bug of the dataset or its transforms, and an error.
READ_ERRORS = (OSError, EOFError, struct.error, zlib.error)
Item = tuple[int, int]  # epoch, index
T = TypeVar("T")


def seed_everything(seed: int, *key: int, purpose: str | None = None, devices: bool = True) -> None:
    """Seed the generators of torch (of all devices, or the CPU's), numpy and Python for one use.

    For another seed or key, such as step and rank, they are unrelated. With a `purpose`, which is
    part of the key, they are those of the engine, without those of the frameworks' trainers: two
    streams, as published results depend on either.
    """
    # numpy takes (1, 2) and (1, 2, 0) for the same, hence the count
    if purpose is None:
        words = np.random.SeedSequence([seed, len(key), *key]).generate_state(4)
        of_numpy, of_python, of_torch = words[:2], int(words[2]), int(words[3])
    else:
        entropy = (zlib.crc32(purpose.encode()), 1 + len(key), seed, *key)
        first, second = np.random.SeedSequence(entropy).generate_state(2, np.uint64).tolist()
        of_numpy, of_python, of_torch = second % 2**32, first, first % 2**63
    np.random.seed(of_numpy)  # noqa: NPY002  # augmentations of the frameworks use this generator
    random.seed(of_python)
    # for each kind of device that is not in use yet, `torch.manual_seed` formats the whole stack:
    # a millisecond, as much as it takes to read a small image
    (torch.manual_seed if devices else torch.default_generator.manual_seed)(of_torch)


def choose_micro_batch_size(
    step: int, processes: int, *, largest: int, fits: Callable[[int], bool] = bool
) -> int:
    """Return the largest batch, up to a size, that each process can cut its share of a step into.

    `fits` says whether a batch of so many samples may be.

    Raises:
        ValueError: If so many processes cannot share the samples of a step equally.
    """

    def size_for(count: int) -> int:
        divisors = (size for size in range(largest, 0, -1) if step % (count * size) == 0)
        return next(filter(fits, divisors), 0)

    size = size_for(processes)
    if size:
        return size
    fitting = ", ".join(str(count) for count in range(1, step + 1) if size_for(count))
    raise ValueError(
        f"{processes} processes cannot share a step of {step} samples equally: take {fitting}"
    )


def rank_slice(step: int, rank: int, processes: int) -> range:
    """Return the places of a process's samples among those of a step."""
    return range(step * rank // processes, step * (rank + 1) // processes)


class SampleDataset(Protocol):
    """A dataset: any map-style one; with `sample_id(index) -> str` messages name the sample."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of the loader."""

    data: Any  # the collated samples
    items: list[Item]  # epoch and index of each sample, as the order wanted them
    unreadable: dict[str, str]  # name -> why, of each sample that was replaced

    def pin_memory(self) -> "Batch":
        """Pin the tensors, as the loader asks, for copies to a GPU beside computation."""
        return replace(self, data=tree_map_only(torch.Tensor, torch.Tensor.pin_memory, self.data))


class SampleError(RuntimeError):
    """A bug in the code of a sample, with the name of the sample."""


@dataclass(eq=False)
class OrderedBatches(Sampler[list[Item]]):
    """Micro-batches of one process, from an optimizer step on, without end.

    All processes together take consecutive parts of one permutation of `size` indexes for each
    epoch; the end that fills no optimizer step is left out.

    Raises:
        ValueError: If the dataset does not fill one step.
    """

    size: int
    batch_size: int
    accumulate: int
    rank: int
    world_size: int
    seed: int
    start_step: int = 0

    def __post_init__(self) -> None:
        together = self.batch_size * self.accumulate * self.world_size
        self.steps_per_epoch = self.size // together
        if not self.steps_per_epoch:
            raise ValueError(
                f"{self.size} samples do not fill a step of {self.batch_size} x {self.accumulate} "
                f"x {self.world_size} (batch_size x accumulate x processes)"
            )

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, first = divmod(self.start_step, self.steps_per_epoch)
        number = torch.int32 if self.size <= torch.iinfo(torch.int32).max else torch.int64
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.size, generator=generator, dtype=number)
            together = self.batch_size * self.world_size
            for micro in range(first * self.accumulate, self.steps_per_epoch * self.accumulate):
                begin = micro * together + self.rank * self.batch_size
                yield [(epoch, index) for index in order[begin : begin + self.batch_size].tolist()]
            epoch, first = epoch + 1, 0
            del order  # before the next is drawn


class SeededSamples(Dataset[Any]):
    """A dataset whose random numbers belong to epoch and index, and that replaces bad samples.

    One of `READ_ERRORS` in the dataset is a sample that cannot be read.
    """

    def __init__(self, samples: SampleDataset, *, seed: int) -> None:
        self.samples, self.seed = samples, seed

    def __getitem__(self, item: Item) -> tuple[Any, Item, dict[str, str]]:
        """Load a sample, or the next one that can be read, and the names of those that cannot.

        Raises:
            TooManyUnreadableError: If too many in a row cannot be read.
            SampleError: For other errors than `READ_ERRORS`.
        """
        epoch, requested = item
        unreadable: dict[str, str] = {}
        for attempt in range(_ATTEMPTS):
            index = (requested + attempt) % len(self.samples)
            seed_everything(self.seed, epoch, requested, attempt, purpose="sample", devices=False)
            try:
                return self.samples[index], item, unreadable
            except Exception as error:
                name, reason = sample_id(self.samples, index), f"{type(error).__name__}: {error}"
                if not isinstance(error, READ_ERRORS):
                    location = f"sample {name} (epoch {epoch}, index {index})"
                    raise SampleError(f"{location} met a bug: {reason}") from error
                unreadable[name] = reason
        name, reason = next(iter(unreadable.items()))
        raise TooManyUnreadableError(
            f"{_ATTEMPTS} samples in a row cannot be read, from {name}: {reason}"
        )


class BadSamples:
    """Names of the samples of a run that cannot be read, each of which counts once.

    `setting` is what the user calls the allowed number of them, `done` what is done with one.
    """

    def __init__(
        self,
        allowed: int,
        names: Iterable[str] = (),
        *,
        setting: str = "max_bad_samples",
        done: str = "replaced a sample",
    ) -> None:
        self.allowed, self.names = allowed, set(names)
        self.setting, self.done = setting, done

    def add(self, unreadable: Mapping[str, str]) -> None:
        """Note samples of all processes, name -> why or "", and log those that are new.

        Raises:
            TooManyUnreadableError: If there are more than allowed.
        """
        for name in sorted(unreadable.keys() - self.names):
            line = ": ".join(filter(None, (name, unreadable[name])))
            logger.warning("%s that cannot be read: %s", self.done, line)
        self.names |= unreadable.keys()
        if len(self.names) > self.allowed:
            raise TooManyUnreadableError(
                f"{len(self.names)} samples could not be read, {self.setting} is {self.allowed}: "
                f"{', '.join(sorted(self.names)[:_SHOWN])}; the log says why"
            )


def sample_id(samples: SampleDataset, index: int) -> str:
    """Return the name of a sample, for messages."""
    name: Callable[[int], str] | None = getattr(samples, "sample_id", None)
    return name(index) if name else f"sample {index}"


def check_same_data(samples: SampleDataset) -> None:
    """Refuse data that differ between processes in number, or in `checksum()` where there is one.

    Raises:
        ValueError: On all processes, naming the first that differs.
    """
    if processes.world_size() == 1:
        return
    checksum: Callable[[], int] = getattr(samples, "checksum", lambda: 0)
    first, *others = processes.gather((len(samples), checksum()))
    for number, other in enumerate(others, start=1):
        if other != first:
            difference = f"{other[0]} {'other ' * (other[0] == first[0])}samples"
            raise ValueError(
                f"process {number} has {difference}, and process 0 has {first[0]}: give all "
                f"processes the same data, or an index of it"
            )


def _batch(
    collate: Callable[[list[Any]], Any], entries: Sequence[tuple[Any, Item, dict[str, str]]]
) -> Batch:
    samples, items, unreadable = zip(*entries, strict=True)
    bad = {name: why for part in unreadable for name, why in part.items()}
    return Batch(data=collate(list(samples)), items=list(items), unreadable=bad)


def build_loader(
    samples: SampleDataset,
    batches: OrderedBatches,
    *,
    workers: int,
    timeout: float = TIMEOUT,
    pin_memory: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Batch]:
    """Build the loader of a run's batches, without end; `collate` makes the data of a batch."""
    loader = DataLoader(
        SeededSamples(samples, seed=batches.seed),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(_batch, collate or default_collate),
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
    )
    return guard_workers(loader, timeout=timeout)


def guard_workers(loader: DataLoader[T], *, timeout: float = TIMEOUT) -> DataLoader[T]:
    """Let a loader's workers leave signals to the run, and end the run rather than let it wait.

    It waits for a batch for as long as the loader says, or else for `timeout` seconds.
    """
    if loader.num_workers:
        loader.worker_init_fn = partial(_init_worker, then=loader.worker_init_fn)
        loader.timeout = loader.timeout or timeout
    return loader


def _init_worker(worker: int, *, then: Callable[[int], None] | None) -> None:
    ignore_signals_in_worker()
    Queue._on_queue_feeder_error = staticmethod(_exit_without_batch)  # type: ignore[attr-defined]
    if then is not None:
        then(worker)


def _exit_without_batch(error: Exception, _: object) -> NoReturn:
    """End a worker that cannot hand a batch over: Python would drop it, and the run wait for it."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    print_error(
        f"a worker cannot hand its batch over: {single_line_message(error)} "
        f"(at most {files} open files: ulimit -n; shared memory: df -h /dev/shm)"
    )
    os._exit(1)


def end_workers(*iterators: Any) -> None:
    """End the workers of loaders' iterators: they ignore SIGTERM, and Python would wait for them.

    An iterator is None if it was not begun.
    """
    for iterator in iterators:
        getattr(iterator, "_shutdown_workers", lambda: None)()
        for worker in getattr(iterator, "_workers", ()):
            worker.kill()  # one that is stuck has not ended in PyTorch's five seconds
            worker.join()


def next_batch(stream: Iterator[Batch]) -> Batch:
    """Take a batch from a running loader.

    Raises:
        RuntimeError: If one of its processes ended.
    """
    try:
        return next(stream)
    except (ConnectionError, EOFError, FileNotFoundError) as error:  # while it handed a batch over
        raise RuntimeError("DataLoader worker ended; is the main memory full?") from error


def to_device(data: T, device: torch.device) -> T:
    """Copy the tensors of a batch, in any nesting of dicts, lists and tuples, to a device."""
    copied: T = tree_map_only(
        torch.Tensor, lambda tensor: tensor.to(device, non_blocking=True), data
    )
    return copied
