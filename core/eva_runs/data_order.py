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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.queues import Queue
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

import numpy as np
import torch
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from eva_runs import processes
from eva_runs.errors import TooManyUnreadableError, print_error, single_line_message
from eva_runs.interruption import ignore_signals_in_worker

logger = logging.getLogger(__name__)

_SPARES = 19  # replacements in a row for one sample
_SHOWN = 10  # names in a message
TIMEOUT = 1800.0  # seconds to wait for a batch; collectives of PyTorch wait as long
# What reading a damaged or missing file raises (`UnreadableImageError` is an OSError); anything
# else is a bug of the dataset or its transforms, and an error.
READ_ERRORS = (OSError, EOFError, struct.error, zlib.error)
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


class Draw(NamedTuple):
    """A sample that a step wants.

    Attributes:
        key: What its random numbers are seeded by, besides the seed of the run.
        sample_index: Which sample of the dataset it is.
        spares: What replaces it if it cannot be read, in this order; None for those that follow.
    """

    key: tuple[int, ...]
    sample_index: int
    spares: tuple[int, ...] | None = None


class DrawSource(Protocol):
    """What is drawn: a permutation for each epoch, or the sampler of a framework."""

    def __len__(self) -> int:
        """Return the steps of an epoch."""

    def steps(self, shard: int, shards: int, start: int) -> Iterator[list[Draw]]:
        """Iterate without end over what one of so many shards takes in each step, from one on."""


@dataclass(eq=False)
class Permutations:
    """Consecutive parts of one permutation of `size` indexes for each epoch.

    The end that fills no step is left out.

    Raises:
        ValueError: If the samples do not fill one step.
    """

    size: int
    step_batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.size < self.step_batch:
            raise ValueError(
                f"{self.size} samples do not fill a step of {self.step_batch} (batch_size x "
                "accumulate x processes)"
            )

    def __len__(self) -> int:
        return self.size // self.step_batch

    def steps(self, shard: int = 0, shards: int = 1, start: int = 0) -> Iterator[list[Draw]]:
        """Iterate over all that each step takes: there is one shard."""
        assert (shard, shards) == (0, 1)
        epoch, first = divmod(start, len(self))
        number = torch.int32 if self.size <= torch.iinfo(torch.int32).max else torch.int64
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(self.size, generator=generator, dtype=number)
            for step in range(first, len(self)):
                begin = step * self.step_batch
                indexes = order[begin : begin + self.step_batch].tolist()
                yield [Draw((epoch, index), index) for index in indexes]
            epoch, first = epoch + 1, 0
            del order  # before the next is drawn


@dataclass(eq=False, kw_only=True)
class ElasticSampler(Sampler[list[Draw]]):
    """Micro-batches of this process, from a step on, without end.

    What a step takes does not depend on the number of processes: it is what the `shards` draw,
    which are the processes that the run began with, or one. Each process takes its cut.

    Attributes:
        sampler: What is drawn, under the name that PyTorch's batch samplers have for it.
        step_batch: Samples of a step of all processes.
        micro_batch: Largest number of samples of a forward pass of this process.
        shards: What the source is drawn for.
        start: Steps to skip.
        interleaved: Whether the processes take turns with their micro-batches, or have one part of
            the step each.
    """

    sampler: DrawSource
    step_batch: int
    micro_batch: int
    shards: int = 1
    start: int = 0
    interleaved: bool = False
    rank: int = field(default_factory=lambda: processes.rank())
    world_size: int = field(default_factory=lambda: processes.world_size())

    @property
    def accumulate(self) -> int:
        """Micro-batches of a step of this process."""
        return self.step_batch // self.world_size // self.micro_batch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Draw]]:
        share = self.step_batch // self.shards
        own = rank_slice(self.step_batch, self.rank, self.world_size)
        begin, jump = own.start, self.micro_batch
        if self.interleaved:
            own, jump = range(self.step_batch), self.micro_batch * self.world_size
            begin = self.rank * self.micro_batch
        first, behind = own.start // share, -(-own.stop // share)
        streams = [
            self.sampler.steps(shard, self.shards, self.start) for shard in range(first, behind)
        ]
        begins = range(begin - first * share, own.stop - first * share, jump)
        for parts in zip(*streams, strict=True):
            step = [draw for part in parts for draw in part]
            for begin in begins:
                yield step[begin : begin + self.micro_batch]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of the loader."""

    data: Any  # the collated samples
    draws: list[Draw]  # as the order wanted them
    unreadable: dict[str, str]  # name -> why, of each sample that was replaced

    def pin_memory(self) -> "Batch":
        """Pin the tensors, as the loader asks, for copies to a GPU beside computation."""
        return replace(self, data=tree_map_only(torch.Tensor, torch.Tensor.pin_memory, self.data))


class SampleError(RuntimeError):
    """A bug in the code of a sample, with the name of the sample."""


class SeededDataset(Dataset[Any]):
    """Samples by draw, whose random numbers are its own, and that replace those that are bad.

    Args:
        samples: The dataset. None in place of a sample is one that it refuses.
        seed: Seed of the run.
        purpose: As that of `seed_everything`.
        errors: Errors of a sample that cannot be read; any other is a bug.
        message: What begins the message if too many in a row are bad; it has their number.
    """

    def __init__(
        self,
        samples: SampleDataset,
        *,
        seed: int,
        purpose: str | None = "sample",
        errors: tuple[type[Exception], ...] = READ_ERRORS,
        message: str = "{} samples in a row cannot be read",
    ) -> None:
        self.samples, self.seed, self.purpose = samples, seed, purpose
        self.errors, self.message = errors, message

    def __getitem__(self, draw: Draw) -> tuple[Any, Draw, dict[str, str]]:
        """Load a sample, or the first of its spares, and the names of those that are bad.

        Raises:
            TooManyUnreadableError: If all are bad.
            SampleError: For a bug.
        """
        following = (
            (draw.sample_index + 1 + number) % len(self.samples) for number in range(_SPARES)
        )
        unreadable: dict[str, str] = {}
        candidates = [draw.sample_index, *(following if draw.spares is None else draw.spares)]
        for attempt, index in enumerate(candidates):
            seed_everything(self.seed, *draw.key, attempt, purpose=self.purpose, devices=False)
            try:
                sample = self.samples[index]
            except Exception as error:
                name, reason = sample_id(self.samples, index), f"{type(error).__name__}: {error}"
                if not isinstance(error, self.errors):
                    location = f"sample {name} (index {index}, drawn as {draw.key})"
                    raise SampleError(f"{location} met a bug: {reason}") from error
                unreadable[name] = reason
            else:
                if sample is not None:
                    return sample, draw, unreadable
        problems = "; ".join(f"{name}: {reason}" for name, reason in [*unreadable.items()][:_SHOWN])
        raise TooManyUnreadableError(f"{self.message.format(len(candidates))}: {problems}")


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
            kind = "other samples" if other[0] == first[0] else "samples"
            raise ValueError(
                f"process {number} has {other[0]} {kind}, and process 0 has {first[0]}: give all "
                f"processes the same data, or an index of it"
            )


def _collate_batch(
    collate: Callable[[list[Any]], Any], entries: Sequence[tuple[Any, Draw, dict[str, str]]]
) -> Batch:
    samples, draws, unreadable = zip(*entries, strict=True)
    bad = {name: why for part in unreadable for name, why in part.items()}
    return Batch(data=collate(list(samples)), draws=list(draws), unreadable=bad)


def build_loader(
    samples: Dataset[Any],
    sampler: ElasticSampler,
    *,
    workers: int,
    timeout: float = TIMEOUT,
    collate: Callable[[list[Any]], Any] | None = None,
    **options: Any,
) -> DataLoader[Batch]:
    """Build the loader of a run's batches of a `SeededDataset`, without end.

    `collate` makes the data of a batch; None stacks tensors.
    """
    loader = DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=partial(_collate_batch, collate or default_collate),
        **options,
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
