"""The stream of training batches: a pure function of a seed and a position in it.

The sampler runs in the main process and numbers what it draws; a worker seeds every generator from
(seed, number) before it loads an image. A continued run skips what it has seen without loading it.
"""

import copy
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from detectron2.data import DatasetFromList
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.data.samplers import TrainingSampler
from PIL.Image import DecompressionBombError
from torch.utils.data import Sampler

from eva_runs import data_order, processes
from eva_runs.data_order import (
    Draw,
    ElasticSampler,
    SeededDataset,
    build_loader,
    choose_micro_batch_size,
    end_workers,
)

SAMPLE, STEP, SAMPLER = range(3)  # what a random number is for: first part of its key
# The toolkit's mappers raise OSError; detectron2's, of stock and earlier configs, what Pillow and
# the files below it do, and both SizeMismatchError; other errors are bugs.
READ_ERRORS = (*data_order.READ_ERRORS, SyntaxError, SizeMismatchError, DecompressionBombError)


@dataclass(kw_only=True)
class SamplerDraws:
    """What a sampler of detectron2 draws, in batches of one shape.

    Attributes:
        sampler: Endless indexes of a process, as detectron2's samplers know their place.
        batch_size: Images of a batch of a process.
        accumulate: Batches of a step of a process.
        wide: Whether each image is wider than high, to make batches of one kind; None for any.
        spares: Replacements named for each image: those that come next.
    """

    sampler: Sampler[int]
    batch_size: int
    accumulate: int
    wide: Sequence[bool] | None
    spares: int

    def __len__(self) -> int:
        raise TypeError("a sampler of detectron2 has no epochs")

    def steps(self, shard: int, shards: int, start: int) -> Iterator[list[Draw]]:
        """Iterate over what one of so many processes draws for each step."""
        batches = self._batches(shard, shards)
        deque(islice(batches, start * self.accumulate), maxlen=0)
        while True:
            yield [draw for batch in islice(batches, self.accumulate) for draw in batch]

    def _batches(self, shard: int, shards: int) -> Iterator[list[Draw]]:
        buckets: tuple[list[Draw], list[Draw]] = ([], [])
        window: deque[int] = deque()
        sampler: Any = copy.copy(self.sampler)
        if is_cut(sampler):
            sampler._rank, sampler._world_size = shard, shards
        number = shard
        for index in sampler:
            window.append(int(index))
            if len(window) <= self.spares:
                continue
            first, *spares = window
            bucket = buckets[self.wide is not None and self.wide[first]]
            bucket.append(Draw((SAMPLE, number), first, tuple(spares)))
            window.popleft()
            number += shards
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()


def is_cut(sampler: Any) -> bool:
    """Return whether a sampler can be told which process of how many it draws for."""
    return hasattr(sampler, "_rank") and hasattr(sampler, "_world_size")


def _begin_worker(_: int) -> None:
    # of detectron2's masks, about which a user cannot do anything; a spawned worker has no log
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


@dataclass
class MappedRecords:
    """Samples that a mapper makes of records; it may refuse one by None, as in detectron2."""

    records: Any
    mapper: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Any:
        return self.mapper(self.records[index])

    def sample_id(self, index: int) -> str:
        """Return the file of a record, for messages."""
        return str(self.records[index].get("file_name", f"image {index} of the dataset"))


class TrainStream:
    """Endless batches of this process, one iterator at a time.

    Args:
        dataset: Records.
        mapper: Loads one.
        seed: Seed of the run.
        start: Steps to skip.
        max_bad_images: Images in a row that may be replaced.
        processes_at_start: Processes that the run began with; by default those of now.
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
        processes_at_start: int | None = None,
        accumulate: int = 1,
        micro_batch: int | None = None,
        **options: Any,
    ) -> None:
        now = processes.world_size()
        begun = processes_at_start or now
        if total_batch_size < 1 or total_batch_size % begun or max_bad_images < 0:
            raise ValueError(
                f"{total_batch_size=} must be a positive multiple of the {begun} processes, "
                f"and train.{max_bad_images=} not negative"
            )
        batch_size, step_batch = total_batch_size // begun, total_batch_size * accumulate
        wide = None
        if aspect_ratio_grouping:
            sizes = (dataset[index] for index in range(len(dataset)))
            wide = [record["width"] > record["height"] for record in sizes]
        if isinstance(dataset, list):
            dataset = DatasetFromList(dataset, copy=False)
        sampler = TrainingSampler(len(dataset), seed=seed) if sampler is None else sampler
        self._sampler = ElasticSampler(
            sampler=SamplerDraws(
                sampler=sampler,
                batch_size=batch_size,
                accumulate=accumulate,
                wide=wide,
                spares=max_bad_images,
            ),
            step_batch=step_batch,
            micro_batch=choose_micro_batch_size(step_batch, now, largest=micro_batch or batch_size),
            shards=begun,
            start=start,
        )
        seeded = SeededDataset(
            MappedRecords(dataset, mapper),
            seed=seed,
            purpose=None,
            errors=READ_ERRORS,
            message=f"{{}} images in a row cannot be read, train.max_bad_images={max_bad_images}",
        )
        self._loader = build_loader(
            seeded,
            self._sampler,
            workers=num_workers,
            collate=collate_fn or list,
            worker_init_fn=_begin_worker,
            **options,
        )
        self.order = dict(
            seed=seed,
            processes=begun,
            total_batch_size=total_batch_size,
            accumulate=accumulate,
            images=len(dataset),
        )
        self.accumulate = self._sampler.accumulate
        self._taken = 0
        self.unreadable: dict[str, str] = {}

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        try:
            for batch in batches:
                self.unreadable |= batch.unreadable
                self._taken += 1
                yield batch.data
        finally:  # workers ignore SIGTERM: they must not be left to the interpreter's exit
            end_workers(batches)

    def state_dict(self) -> dict[str, int]:
        """Return the order and the place in it."""
        steps = self._sampler.start + self._taken // self.accumulate
        return self.order | {"batches": steps * self.order["accumulate"]}
