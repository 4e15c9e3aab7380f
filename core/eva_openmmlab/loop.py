"""The training data as a function of a seed and a position, and the loop that reads them so.

mmengine ties each augmentation to the random state of a worker, which cannot be restored. Here the
sampler numbers what it draws, a sample seeds all generators from (seed, number) before it is
loaded, a step from (seed, iteration, rank), and a run that continues skips what it has seen
without loading it. No random state has to be saved, and the number of workers changes nothing.
"""

import copy
from collections.abc import Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.registry import DATASETS, LOOPS
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader, Dataset, Sampler

from eva_backbone.checkpoints.adapters import BASE, read_adapter_config
from eva_backbone.checkpoints.run_folders import ADAPTER, is_adapter
from eva_backbone.lora import LoraSettings
from eva_openmmlab.run_folder import MESSAGES, last_evaluation
from eva_openmmlab.weights import load_start
from eva_report.terminal import SHOWN
from eva_runs.adapters import Adapters
from eva_runs.data_order import (
    choose_micro_batch_size,
    end_workers,
    guard_workers,
    rank_slice,
    seed_everything,
)
from eva_runs.sharing import share

SAMPLE, STEP = range(2)  # what a random number is for: first part of its key
Draw = tuple[int, int]  # number in the stream; index of the sample
_KEPT = (  # of a loader
    *("num_workers", "collate_fn", "pin_memory", "timeout", "multiprocessing_context", "drop_last"),
    *("generator", "prefetch_factor", "persistent_workers", "worker_init_fn", "batch_size"),
)


class NumberedSampler(Sampler[Draw]):
    """The draws of this process from an iteration on, numbered over all processes, without end.

    The samples of an iteration are those that the processes of the run's beginning draw, whatever
    their number is now: each process takes its cut of them.

    Args:
        sampler: Indexes of a process; a finite one is taken again for each epoch.
        batch_size: Samples of an iteration of each process of the beginning.

    Attributes:
        processes: Their number.
        start: Iterations to skip.
    """

    def __init__(self, sampler: Any, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self.processes, self.start = get_world_size(), 0

    def __iter__(self) -> Iterator[Draw]:
        each = self.batch_size
        own = rank_slice(each * self.processes, get_rank(), get_world_size())
        first = own.start // each
        streams = [self._draws(rank) for rank in range(first, -(-own.stop // each))]
        while True:
            step = [draw for stream in streams for draw in islice(stream, each)]
            yield from step[own.start - first * each : own.stop - first * each]

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def is_cut(self) -> bool:
        """Whether the sampler can be told which process of how many it draws for."""
        return hasattr(self.sampler, "rank") and hasattr(self.sampler, "world_size")

    def skip(self, num_samples: int) -> None:
        """Leave `start` as it is, where mmengine skips what an equal number of processes saw."""

    def _draws(self, rank: int) -> Iterator[Draw]:
        numbers = count(rank, self.processes)
        draws = zip(numbers, self._indexes(rank), strict=False)
        return islice(draws, self.start * self.batch_size, None)

    def _indexes(self, rank: int) -> Iterator[int]:
        sampler = self.sampler
        if self.is_cut and (rank, self.processes) != (sampler.rank, sampler.world_size):
            sampler = copy.copy(sampler)
            sampler.rank, sampler.world_size = rank, self.processes
            if getattr(sampler, "round_up", True):
                sampler.num_samples = -(-len(sampler.dataset) // self.processes)
                sampler.total_size = sampler.num_samples * self.processes
            if hasattr(sampler, "_indices_of_rank"):  # of mmengine's InfiniteSampler
                sampler.indices = sampler._indices_of_rank()
        for epoch in count():
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
            index = None
            for index in sampler:
                yield int(index)
            if index is None:
                raise ValueError("the training data have no samples for this process")


class NumberedDataset(Dataset[Any]):
    """Samples by draw, whose number and the run's seed seed whatever the transforms draw.

    The other attributes of the dataset are found here, too.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, draw: Draw) -> Any:
        number, index = draw
        seed_everything(self.seed, SAMPLE, number, devices=False)
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet, while a worker unpickles it
            raise AttributeError(name)
        return getattr(self.dataset, name)


def numbered_loader(loader: DataLoader[Any], seed: int) -> DataLoader[Any]:
    """Rebuild a loader of mmengine with a `NumberedSampler` and a `NumberedDataset`."""
    if loader.batch_size is None:  # its place could not be found again
        raise ValueError("train_dataloader needs a batch_size, not a batch_sampler of its own")
    numbered = DataLoader(
        NumberedDataset(loader.dataset, seed),
        sampler=NumberedSampler(loader.sampler, loader.batch_size),
        **{name: getattr(loader, name) for name in _KEPT},
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


def run_seed(runner: Any) -> int:
    """Return the seed of a run, the same on all processes."""
    different = runner._randomness_cfg.get("diff_rank_seed", False)
    return int(runner.seed) - (get_rank() if different else 0)


def _add_adapters(runner: Any) -> Adapters | None:
    """Load the first weights and add adapters to them, before there is an optimizer."""
    settings = LoraSettings.of(runner.cfg.get("lora"))
    if not settings.rank:
        return None
    runner._init_model_weights()
    runner._init_model_weights = lambda: None  # no more, behind the weights that are loaded here
    model: Any = getattr(runner.model, "module", runner.model).cpu()
    start, run = runner._load_from, Path(runner.work_dir, ADAPTER).parent
    if runner._resume and not start and is_adapter(run):  # mmdetection's own --resume forgets it
        start = read_adapter_config(run)[BASE]
    base = start or getattr(model.backbone, "pretrained", None) or ""
    if start:
        report = load_start(model, base)
        if report.from_scratch and not runner._resume:
            runner.logger.warning(report.from_scratch, extra=SHOWN)
    adapters = Adapters(model, settings, base)
    runner._has_loaded = True
    runner.model = runner.wrap_model(runner.cfg.get("model_wrapper_cfg"), model)
    return adapters


@LOOPS.register_module()
class EVATrainLoop(IterBasedTrainLoop):
    """mmengine's `IterBasedTrainLoop` (same arguments), in which a sample owns its random numbers.

    With `RunHook` and `EVACheckpointHook` a continued run computes what one without a break would,
    and catches up on an evaluation that was cut off.

    Attributes:
        was_over: Whether for this start nothing was left to do.
        adapters: Adapters of the model, which get their settings from `lora` in the config.
    """

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        self.adapters = _add_adapters(runner)
        seed = run_seed(runner)
        if isinstance(dataloader, dict):
            shared = {"type": build_shared, "config": dataloader["dataset"]}
            dataloader = {**dataloader, "dataset": shared}
        numbered = numbered_loader(runner.build_dataloader(dataloader, seed=seed), seed)
        super().__init__(runner, numbered, *args, **kwargs)
        self.samples_of_a_batch = int(numbered.batch_size or 1) * get_world_size()
        self._batches = 1  # of an iteration on this process
        self.was_over = False
        self._first = (0, 0)  # iteration and sample (over all processes) of this start
        batches = runner.cfg.get("optim_wrapper", {}).get("accumulative_counts", 1)
        saving = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        for interval in (
            self.val_interval,
            *(hook.interval for hook in saving if not hook.by_epoch),
        ):
            if 0 < interval < self._max_iters and interval % batches:
                raise ValueError(
                    f"intervals of evaluations and checkpoints, {interval}, must be multiples of "
                    f"accumulative_counts={batches}: a checkpoint holds no half of a step"
                )

    def position(self, iteration: int) -> dict[str, int]:
        """Return what the order of the data depends on, and the samples up to an iteration."""
        done, sample = self._first
        return {
            "seed": run_seed(self.runner),
            "samples_of_a_batch": self.samples_of_a_batch,
            "processes": self.dataloader.sampler.processes,
            "images": len(self.dataloader.dataset),
            "samples": sample + (iteration - done) * self.samples_of_a_batch,
        }

    def continue_at(self, iteration: int, saved: Mapping[str, int]) -> None:
        """Begin after an iteration, at its `position`.

        Raises:
            ValueError: If the processes cannot share the samples of an iteration.
        """
        sampler, now = self.dataloader.sampler, get_world_size()
        begun, samples = saved.get("processes", now), saved["samples_of_a_batch"]
        if begun != now and sampler.is_cut:
            cut: Any = self.dataloader.batch_sampler
            cut.batch_size = choose_micro_batch_size(samples, now, largest=cut.batch_size)
            self._batches = samples // now // cut.batch_size
            sampler.processes, sampler.batch_size = begun, samples // begun
            self.samples_of_a_batch = samples
            message = (
                "continues on %d processes, began with %d: an iteration has %d x %d samples of each"
            )
            self.runner.logger.info(message, now, begun, self._batches, cut.batch_size, extra=SHOWN)
        batch = self.samples_of_a_batch
        self._first = iteration, -(-saved["samples"] // batch) * batch
        sampler.start = self._first[1] // batch

    def catch_up(self) -> None:
        """Evaluate where a run that continues was stopped before it did, or say that it is over."""
        runner, folder = self.runner, Path(self.runner.work_dir)
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        evaluated = last_evaluation(folder)
        scores = runner.val_loop is not None and self._iter >= self.val_begin
        if self._iter and scores and due and evaluated != self._iter:
            runner.logger.info("catching up on the evaluation after iteration %d", self._iter)
            runner.val_loop.run()
        elif self._iter >= self._max_iters:
            self.was_over = True
            runner.logger.info(MESSAGES.finished(folder, self._max_iters), extra=SHOWN)

    def run(self) -> Any:
        """Train to the last iteration, and return the model."""
        seed, sampler = run_seed(self.runner), self.dataloader.sampler.sampler
        self.dataloader.dataset.seed = seed  # a resumed run has its own
        if hasattr(sampler, "seed"):
            sampler.seed = seed
        wrapper = self.runner.optim_wrapper
        wrapper._accumulative_counts *= self._batches
        counts = self._iter * self._batches, self._max_iters * self._batches
        wrapper.initialize_count_status(self.runner.model, *counts)
        try:
            return super().run()
        finally:
            val = getattr(getattr(self.runner, "_val_loop", None), "dataloader", None)
            end_workers(self.dataloader_iterator._iterator, getattr(val, "_iterator", None))
            for hook in self.runner.hooks:
                writer = getattr(hook, "writer", None)
                if writer:
                    writer.wait()  # a run that fails leaves what it has saved

    def run_iter(self, data_batch: Any) -> None:
        """Train an iteration, whose random numbers are its own: loading draws some as well."""
        seed_everything(self.dataloader.dataset.seed, STEP, self._iter, get_rank())
        for _ in range(self._batches - 1):
            self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data_batch)
            self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)
            data_batch = next(self.dataloader_iterator)
        super().run_iter(data_batch)
