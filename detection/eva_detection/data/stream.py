"""The stream of training batches: a pure function of a seed and a position in it.

detectron2's loader ties the order of the data to the number of its workers and each augmentation to
a worker's random state; neither can be restored. Here the sampler runs in the main process and
numbers what it draws, a worker seeds every random generator from (seed, number) before it loads an
image, and a run that continues skips what it has seen without loading it. No random state has to be
saved, and the number of workers changes nothing.
"""

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
from eva_runs.data_order import seed_all
from eva_runs.errors import TooManyUnreadableError

SAMPLE, STEP, SAMPLER = range(3)  # what a random number is for: first part of its key
# The toolkit's mappers raise OSError; detectron2's, of stock and earlier configs, what Pillow and
# the files below it do, and both SizeMismatchError; other errors are bugs.
READ_ERRORS = (*data_order.READ_ERRORS, SyntaxError, SizeMismatchError, DecompressionBombError)

Draw = tuple[int, tuple[int, ...]]  # number in the stream; the image and its replacements


class Plan(Sampler[list[Draw]]):
    """Which images make which batch of this process, without loading one.

    Args:
        sampler: Endless indexes of this process.
        batch_size: Images of a batch of this process.
        wide: Whether each image is wider than high, to make batches of one kind; None for any.
        spares: Replacements named for each image: those that come next.
        start: Batches to skip.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        *,
        batch_size: int,
        wide: Sequence[bool] | None,
        spares: int,
        start: int,
    ) -> None:
        self.sampler, self.batch_size, self.wide = sampler, batch_size, wide
        self.spares, self.start = spares, start

    def __iter__(self) -> Iterator[list[Draw]]:
        return islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[Draw]]:
        buckets: tuple[list[Draw], list[Draw]] = ([], [])
        window: deque[int] = deque()
        number, processes = comm.get_rank(), comm.get_world_size()
        for index in self.sampler:
            window.append(int(index))
            if len(window) <= self.spares:
                continue
            bucket = buckets[self.wide is not None and self.wide[window[0]]]
            bucket.append((number, tuple(window)))
            window.popleft()
            number += processes
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()


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
            seed_all(self.seed, SAMPLE, number, attempt)
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
        start: Batches of this process to skip.
        max_bad_images: Images in a row that may be replaced.
        **options: As all others, of detectron2's `build_detection_train_loader`.

    Attributes:
        order: The seed and what else the order of the data depends on.
        unreadable: Error of each file that was replaced; the trainer reports and empties it.
        batches: Batches that this process has taken, over all starts of the run.

    Raises:
        ValueError: If the processes cannot share a batch.
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
        **options: Any,
    ) -> None:
        processes = comm.get_world_size()
        if total_batch_size < 1 or total_batch_size % processes or max_bad_images < 0:
            raise ValueError(
                f"{total_batch_size=} must be a positive multiple of the {processes} processes, "
                f"and train.{max_bad_images=} not negative"
            )
        wide = None
        if aspect_ratio_grouping:
            sizes = (dataset[index] for index in range(len(dataset)))
            wide = [record["width"] > record["height"] for record in sizes]
        if isinstance(dataset, list):
            dataset = DatasetFromList(dataset, copy=False)
        plan = Plan(
            TrainingSampler(len(dataset), seed=seed) if sampler is None else sampler,
            batch_size=total_batch_size // processes,
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
            seed=seed, processes=processes, total_batch_size=total_batch_size, images=len(dataset)
        )
        self.batches = start
        self.unreadable: dict[str, str] = {}

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        try:
            for pairs in batches:
                for sample, unreadable in pairs:
                    if sample is None:
                        found = "; ".join(f"{name}: {why}" for name, why in unreadable.items())
                        raise TooManyUnreadableError(
                            f"{len(unreadable)} images in a row cannot be read, train."
                            f"max_bad_images={self._spares}: {found}"
                        )
                    self.unreadable |= unreadable
                samples = [sample for sample, _ in pairs]
                self.batches += 1
                yield self._collate(samples) if self._collate else samples
        finally:  # workers ignore SIGTERM: they must not be left to the interpreter's exit
            data_order.end_workers(batches)

    def state_dict(self) -> dict[str, int]:
        """Return the order and the place in it."""
        return self.order | {"batches": self.batches}
