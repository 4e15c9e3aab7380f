"""The stream of training batches: a pure function of a seed and a position in it.

The sampler runs in the main process and numbers what it draws; a worker seeds every generator from
(seed, number) before it loads an image. A continued run skips what it has seen without loading it.
"""

import copy
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from detectron2.data import DatasetFromList
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from PIL.Image import DecompressionBombError
from torch.utils.data import DataLoader, Dataset, Sampler

from eva_runs import data_order
from eva_runs.data_order import choose_micro_batch_size, rank_slice, seed_everything
from eva_runs.errors import TooManyUnreadableError

SAMPLE, STEP, SAMPLER = range(3)  # what a random number is for: first part of its key
# The toolkit's mappers raise OSError; detectron2's, of stock and earlier configs, what Pillow and
# the files below it do, and both SizeMismatchError; other errors are bugs.
READ_ERRORS = (*data_order.READ_ERRORS, SyntaxError, SizeMismatchError, DecompressionBombError)

Draw = tuple[int, tuple[int, ...]]  # number in the stream; the image and its replacements


class BatchPlan(Sampler[list[Draw]]):
    """Which images make which batch of this process, without loading one.

    The images of a step are those that `processes`, the number that a run began with, draw and
    group, whatever the number is now: each process takes its cut of them.

    Args:
        sampler: Endless indexes of a process, as detectron2's samplers know their place.
        processes: Processes of the beginning.
        batch_size: Images of a batch of each of them.
        accumulate: Batches of a step of each of them.
        micro_batch: Images of a batch of this process.
        wide: Whether each image is wider than high, to make batches of one kind; None for any.
        spares: Replacements named for each image: those that come next.
        start: Steps to skip.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        *,
        processes: int,
        batch_size: int,
        accumulate: int,
        micro_batch: int,
        wide: Sequence[bool] | None,
        spares: int,
        start: int,
    ) -> None:
        self.sampler, self.processes, self.accumulate = sampler, processes, accumulate
        self.batch_size, self.micro_batch = batch_size, micro_batch
        self.wide, self.spares, self.start = wide, spares, start

    def __iter__(self) -> Iterator[list[Draw]]:
        each = self.batch_size * self.accumulate
        own = rank_slice(each * self.processes, comm.get_rank(), comm.get_world_size())
        first = own.start // each
        streams = [self._batches(rank) for rank in range(first, -(-own.stop // each))]
        for stream in streams:
            deque(islice(stream, self.start * self.accumulate), maxlen=0)
        while True:
            taken = [islice(stream, self.accumulate) for stream in streams]
            step = [draw for batches in taken for batch in batches for draw in batch]
            for at in range(own.start - first * each, own.stop - first * each, self.micro_batch):
                yield step[at : at + self.micro_batch]

    def _batches(self, rank: int) -> Iterator[list[Draw]]:
        buckets: tuple[list[Draw], list[Draw]] = ([], [])
        window: deque[int] = deque()
        sampler: Any = copy.copy(self.sampler)
        if is_cut(sampler):
            sampler._rank, sampler._world_size = rank, self.processes
        number = rank
        for index in sampler:
            window.append(int(index))
            if len(window) <= self.spares:
                continue
            bucket = buckets[self.wide is not None and self.wide[window[0]]]
            bucket.append((number, tuple(window)))
            window.popleft()
            number += self.processes
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()


def is_cut(sampler: Any) -> bool:
    """Return whether a sampler can be told which process of how many it draws for."""
    return hasattr(sampler, "_rank") and hasattr(sampler, "_world_size")


def _begin_worker(_: int) -> None:
    # of detectron2's masks, about which a user cannot do anything; a spawned worker has no log
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class _MappedDataset(Dataset[Any]):
    """Images by draw: seeded, mapped, and replaced where they cannot be read."""

    def __init__(self, dataset: Any, mapper: Callable[[Any], Any], seed: int) -> None:
        self.dataset, self.mapper, self.seed = dataset, mapper, seed

    def __getitem__(self, draw: Draw) -> tuple[Any, dict[str, str]]:
        number, candidates = draw
        unreadable: dict[str, str] = {}
        for attempt, index in enumerate(candidates):
            record = self.dataset[index]
            seed_everything(self.seed, SAMPLE, number, attempt, devices=False)
            try:
                sample = self.mapper(record)
            except READ_ERRORS as error:
                name = record.get("file_name", f"image {index} of the dataset")
                unreadable[str(name)] = f"{type(error).__name__}: {error}"
                continue
            if sample is not None:  # a mapper may refuse an image, as in detectron2
                return sample, unreadable
        return None, unreadable  # raised in the main process, where its message stays as it is


class TrainStream:
    """Endless batches of this process, one iterator at a time.

    Args:
        dataset: Records.
        mapper: Loads one.
        seed: Seed of the run.
        start: Steps to skip.
        max_bad_images: Images in a row that may be replaced.
        processes: Processes that the run began with; by default those of now.
        accumulate: Batches of a step at the beginning.
        micro_batch: Largest batch of this process; by default that of the beginning.
        **options: As all others, of detectron2's `build_detection_train_loader`.

    Attributes:
        order: The seed and what else the order of the data depends on.
        unreadable: Error of each file that was replaced; the trainer reports and empties it.
        accumulate: Batches of a step of this process.

    Raises:
        ValueError: If the processes cannot share a step.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        mapper: Callable[[Any], Any],
        seed: int,
        total_batch_size: int,
        sampler: Sampler[int] | None = None,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        start: int = 0,
        max_bad_images: int = 10,
        processes: int | None = None,
        accumulate: int = 1,
        micro_batch: int | None = None,
        **options: Any,
    ) -> None:
        processes, now = processes or comm.get_world_size(), comm.get_world_size()
        if total_batch_size < 1 or total_batch_size % processes or max_bad_images < 0:
            raise ValueError(
                f"{total_batch_size=} must be a positive multiple of the {processes} processes, "
                f"and train.{max_bad_images=} not negative"
            )
        batch_size, images = total_batch_size // processes, total_batch_size * accumulate
        micro_batch = choose_micro_batch_size(images, now, largest=micro_batch or batch_size)
        wide = None
        if aspect_ratio_grouping:
            sizes = (dataset[index] for index in range(len(dataset)))
            wide = [record["width"] > record["height"] for record in sizes]
        if isinstance(dataset, list):
            dataset = DatasetFromList(dataset, copy=False)
        plan = BatchPlan(
            TrainingSampler(len(dataset), seed=seed) if sampler is None else sampler,
            processes=processes,
            batch_size=batch_size,
            accumulate=accumulate,
            micro_batch=micro_batch,
            wide=wide,
            spares=max_bad_images,
            start=start,
        )
        loader: DataLoader[Any] = DataLoader(
            _MappedDataset(dataset, mapper, seed),
            batch_sampler=plan,
            num_workers=num_workers,
            collate_fn=list,
            worker_init_fn=_begin_worker,
            **options,
        )
        self._loader = data_order.guard_workers(loader)
        self._collate, self._spares = collate_fn, max_bad_images
        self.order = dict(
            seed=seed,
            processes=processes,
            total_batch_size=total_batch_size,
            accumulate=accumulate,
            images=len(dataset),
        )
        self.accumulate = images // now // micro_batch
        self._steps, self._taken = start, 0
        self.unreadable: dict[str, str] = {}

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        try:
            for pairs in batches:
                for sample, unreadable in pairs:
                    if sample is None:
                        problems = "; ".join(f"{name}: {why}" for name, why in unreadable.items())
                        raise TooManyUnreadableError(
                            f"{len(unreadable)} images in a row cannot be read, train."
                            f"max_bad_images={self._spares}: {problems}"
                        )
                    self.unreadable |= unreadable
                samples = [sample for sample, _ in pairs]
                self._taken += 1
                yield self._collate(samples) if self._collate else samples
        finally:  # workers ignore SIGTERM: they must not be left to the interpreter's exit
            data_order.end_workers(batches)

    def state_dict(self) -> dict[str, int]:
        """Return the order and the place in it."""
        steps = self._steps + self._taken // self.accumulate
        return self.order | {"batches": steps * self.order["accumulate"]}
