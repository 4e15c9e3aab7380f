"""The loop of a training: its samples and steps own their random numbers, see `data_order`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast, get_rank, get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, IterBasedTrainLoop

from eva_backbone.checkpoints.adapters import BASE, read_adapter_config
from eva_backbone.checkpoints.run_folders import ADAPTER, is_adapter
from eva_backbone.lora import LoraSettings
from eva_openmmlab.data_order import STEP, build_shared, numbered_loader
from eva_openmmlab.run_folder import CONFIGURED_BATCH_SIZE, run_folder
from eva_openmmlab.weights import load_start
from eva_report.terminal import SHOWN
from eva_runs.adapters import Adapters
from eva_runs.data_order import choose_micro_batch_size, end_workers, seed_everything
from eva_runs.processes import run_on_main_rank
from eva_runs.run_folder import MESSAGES


def run_seed(runner: Any) -> int:
    """Return the seed of a run, the same on all processes."""
    different = (runner.cfg.get("randomness") or {}).get("diff_rank_seed", False)
    return int(runner.seed) - (get_rank() if different else 0)


def _add_adapters(runner: Any) -> Adapters | None:
    """Load the first weights and add adapters to them, before there is an optimizer."""
    settings = LoraSettings.of(runner.cfg.get("lora"))
    if not settings.rank:
        return None
    model: Any = getattr(runner.model, "module", runner.model)
    model.init_weights()  # once: what the runner asks for behind this changes nothing
    for value in model.state_dict().values():
        broadcast(value)
    model.cpu()
    start, continues = runner.cfg.get("load_from"), bool(runner.cfg.get("resume"))
    run = Path(runner.work_dir, ADAPTER).parent
    if continues and not start and is_adapter(run):  # mmdetection's own --resume forgets it
        start = read_adapter_config(run)[BASE]
    base = start or getattr(model.backbone, "pretrained", None) or ""
    if start:
        report = load_start(model, base)
        if report.from_scratch and not continues:
            runner.logger.warning(report.from_scratch, extra=SHOWN)
    adapters = Adapters(model, settings, base)
    runner.model = runner.wrap_model(runner.cfg.get("model_wrapper_cfg"), model)
    return adapters


@LOOPS.register_module()
class EVATrainLoop(IterBasedTrainLoop):
    """mmengine's `IterBasedTrainLoop` (same arguments), in which a sample owns its random numbers.

    With `RunHook` and `EVACheckpointHook` a continued run computes what one without a break would.

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
        self._sampler: Any = numbered.batch_sampler
        self.was_over = False
        self._first = (0, 0)  # iteration and sample (over all processes) of this start
        self._accumulate = runner.cfg.get("optim_wrapper", {}).get("accumulative_counts", 1)
        saving = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        for interval in (
            self.val_interval,
            *(hook.interval for hook in saving if not hook.by_epoch),
        ):
            if 0 < interval < self.max_iters and interval % self._accumulate:
                raise ValueError(
                    f"intervals of evaluations and checkpoints, {interval}, must be multiples of "
                    f"accumulative_counts={self._accumulate}: a checkpoint holds no half of a step"
                )

    def position(self, iteration: int) -> dict[str, int]:
        """Return what the order of the data depends on, and the samples up to an iteration."""
        done, sample = self._first
        begun = self._sampler.step_batch // self._sampler.shards
        return {
            "seed": run_seed(self.runner),
            "samples_of_a_batch": self._sampler.step_batch,
            "processes": self._sampler.shards,
            "images": len(self.dataloader.dataset),
            "accumulative_counts": self._accumulate,
            CONFIGURED_BATCH_SIZE: self.runner.cfg.get(CONFIGURED_BATCH_SIZE, begun),
            "samples": sample + (iteration - done) * self._sampler.step_batch,
        }

    def continue_at(self, iteration: int, saved: Mapping[str, int]) -> None:
        """Begin after an iteration, at its `position`; warn if other samples come than would have.

        Raises:
            ValueError: If the processes cannot share the samples of an iteration.
        """
        sampler, now = self._sampler, get_world_size()
        begun, samples = saved.get("processes", now), saved["samples_of_a_batch"]
        same = (begun, samples) == (now, sampler.step_batch)
        if not same and (begun == now or sampler.sampler.is_cut):
            size = choose_micro_batch_size(samples, now, largest=sampler.micro_batch)
            sampler.shards, sampler.step_batch, sampler.micro_batch = begun, samples, size
            sampler.sampler.batch_size = samples // begun
            reason = f"continues on {now} processes, began with {begun}: " if begun != now else ""
            message = f"{reason}an iteration has %d x %d samples of each process"
            self.runner.logger.info(message, sampler.accumulate, size, extra=SHOWN)
        batch = sampler.step_batch
        self._first = iteration, -(-saved["samples"] // batch) * batch
        sampler.start = self._first[1] // batch
        position = self.position(iteration)
        names = ("images", "processes", "samples_of_a_batch", "accumulative_counts")
        other = [name for name in names if saved.get(name, position[name]) != position[name]]
        if other:
            self.runner.logger.warning(
                "the data and steps are not those of a run without a break: %s",
                ", ".join(f"{name} was {saved[name]} and is {position[name]}" for name in other),
                extra=SHOWN,
            )

    def run(self) -> Any:
        """Train to the last iteration, and return the model."""
        seed, sampler = run_seed(self.runner), self._sampler.sampler.sampler
        self.dataloader.dataset.seed = seed  # a resumed run has its own
        if hasattr(sampler, "seed"):
            sampler.seed = seed
        batches = self._sampler.accumulate
        wrapper = self.runner.optim_wrapper
        wrapper._accumulative_counts *= batches
        counts = self.iter * batches, self.max_iters * batches
        wrapper.initialize_count_status(self.runner.model, *counts)
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        try:
            self._train()
        finally:
            end_workers(self.dataloader_iterator)
            if self.runner.val_loop is not None:
                end_workers(self.runner.val_loop.dataloader._iterator)
            for hook in self.runner.hooks:
                store = getattr(hook, "store", None)
                if store:
                    store.writer.wait()  # a run that fails leaves what it has saved
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _train(self) -> None:
        """Train, first the evaluation behind the checkpoint, unless it was over."""
        logs, done = run_folder(self.runner.work_dir).logs, self.iter
        if done and self._is_due and not run_on_main_rank(lambda: logs.is_evaluated(done)):
            self.runner.logger.info("begins with the evaluation after iteration %d", done)
            self.runner.val_loop.run()
        elif done >= self.max_iters:
            self.was_over = True
            self.runner.logger.info(MESSAGES.finished(logs.folder, self.max_iters), extra=SHOWN)
        if self.iter < self.max_iters:
            self.dataloader_iterator = iter(self.dataloader)
        while self.iter < self.max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if self._is_due:
                self.runner.val_loop.run()

    @property
    def _is_due(self) -> bool:
        """Whether an evaluation comes after the present iteration."""
        is_period = self.iter % self.val_interval == 0 or self.iter == self.max_iters
        return self.runner.val_loop is not None and self.iter >= self.val_begin and is_period

    def run_iter(self, data_batch: Any) -> None:
        """Train an iteration, whose random numbers are its own: loading draws some as well."""
        seed_everything(self.dataloader.dataset.seed, STEP, self.iter, get_rank())
        for _ in range(self._sampler.accumulate - 1):
            self.runner.call_hook("before_train_iter", batch_idx=self.iter, data_batch=data_batch)
            self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)
            data_batch = next(self.dataloader_iterator)
        super().run_iter(data_batch)


def trains(runner: Any) -> bool:
    """Return whether a runner that has begun trains, and does not score weights."""
    return isinstance(runner._train_loop, BaseLoop)


def own_loop(runner: Any) -> EVATrainLoop | None:
    """Return the loop of a training, if it is ours."""
    loop = runner.train_loop if trains(runner) else None
    return loop if isinstance(loop, EVATrainLoop) else None
