"""The training data as a function of a seed and a position.

mmengine ties each augmentation to the random state of a worker, which cannot be restored. Here the
sampler numbers what it draws, a sample seeds all generators from (seed, number) before it is
loaded, and a run that continues skips what it has seen without loading it. No random state has to
be saved, and the number of workers changes nothing.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

from mmengine.dist import get_world_size
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Dataset

from eva_runs.data_order import Draw, ElasticSampler, guard_workers, seed_everything
from eva_runs.sharing import share

SAMPLE, STEP = range(2)  # what a random number is for: first part of its key
_OF_LOADER = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "multiprocessing_context"),
    *("generator", "prefetch_factor", "persistent_workers", "worker_init_fn"),
)


@dataclass
class SamplerDraws:
    """What a sampler of mmengine draws; a finite one is taken again for each epoch."""

    sampler: Any
    batch_size: int  # samples of an iteration of each process that the run began with
    groups: Any = None  # batch sampler that makes batches of it, such as of like aspect ratios

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    @property
    def is_cut(self) -> bool:
        """Whether the sampler can be told which process of how many it draws for."""
        return hasattr(self.sampler, "rank") and hasattr(self.sampler, "world_size")

    def steps(self, shard: int, shards: int, start: int) -> Iterator[list[Draw]]:
        """Iterate over what one of so many processes draws for each iteration."""
        numbered = zip(count(shard, shards), self._indexes(shard, shards), strict=False)
        draws = islice(numbered, start * self.batch_size, None)
        while True:
            yield [
                Draw((SAMPLE, number), index) for number, index in islice(draws, self.batch_size)
            ]

    def _indexes(self, shard: int, shards: int) -> Iterator[int]:
        sampler = self.sampler
        if self.is_cut and (shard, shards) != (sampler.rank, sampler.world_size):
            sampler = copy.copy(sampler)
            sampler.rank, sampler.world_size = shard, shards
            if getattr(sampler, "round_up", True):
                sampler.num_samples = -(-len(sampler.dataset) // shards)
                sampler.total_size = sampler.num_samples * shards
            if hasattr(sampler, "skip"):  # of mmengine's InfiniteSampler: it draws anew
                sampler.skip(0)
        if self.groups is None:
            return iter(Epochs(sampler))
        # without an end of the epoch no batch is smaller, and a position is one of batches
        groups = copy.deepcopy(self.groups, {id(self.groups.sampler): Epochs(sampler)})
        groups.batch_size = self.batch_size
        return chain.from_iterable(groups)


class Epochs:
    """What a sampler draws, epoch after epoch."""

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.dataset = sampler, getattr(sampler, "dataset", None)

    def __iter__(self) -> Iterator[int]:
        for epoch in count():
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)
            index = None
            for index in self.sampler:
                yield int(index)
            if index is None:
                raise ValueError("the training data have no samples for this process")


class NumberedDataset(Dataset[Any]):
    """Samples by draw, which seeds whatever the transforms draw.

    The other attributes of the dataset are found here, too.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, draw: Draw) -> Any:
        seed_everything(self.seed, *draw.key, devices=False)
        return self.dataset[draw.sample_index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet, while a worker unpickles it
            raise AttributeError(name)
        return getattr(self.dataset, name)


def numbered_loader(loader: DataLoader[Any], seed: int) -> DataLoader[Any]:
    """Rebuild a loader of mmengine with an `ElasticSampler` and a `NumberedDataset`."""
    batches: Any = loader.batch_sampler
    size = batches.batch_size
    groups = batches if loader.batch_size is None else None
    sampler = ElasticSampler(
        sampler=SamplerDraws(batches.sampler, size, groups),
        step_batch=size * get_world_size(),
        micro_batch=size,
        shards=get_world_size(),
    )
    numbered = DataLoader(
        NumberedDataset(loader.dataset, seed),
        batch_sampler=sampler,
        **{name: getattr(loader, name) for name in _OF_LOADER},
    )
    return guard_workers(numbered)


def build_shared(*, config: Any) -> Any:
    """Build a dataset, as a `type` of mmengine: its annotations are read once on each machine."""

    def build() -> Any:
        dataset = DATASETS.build(config)
        getattr(dataset, "full_init", lambda: None)()
        for part in getattr(dataset, "datasets", [dataset]):
            vars(part).pop("cat_img_map", None)  # a number for each object, for filtering alone
        return dataset

    return share(build)
