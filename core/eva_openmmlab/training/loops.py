"""mmengine's loops for a run that can be stopped, and continued as if it had not been."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast, get_rank, get_world_size
from mmengine.hooks import CheckpointHook
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop, ValLoop
from mmengine.runner.base_loop import BaseLoop
from torch import nn
from torch.utils.data import DataLoader

from eva_openmmlab.config.runs import SAYS
from eva_openmmlab.terminal.output import say
from eva_openmmlab.training.stream import STEP, RunLoader, numbered_loader, run_loader
from eva_runs.seeding import seed_all


class EvaluationStoppedError(Exception):
    """A signal has arrived in an evaluation."""


@LOOPS.register_module()
class EVATrainLoop(IterBasedTrainLoop):
    """mmengine's `IterBasedTrainLoop`, in which a sample and a step own their random numbers.

    Needs `EVARunner`. Evaluations that a stop or a kill has cut off are caught up.

    Args:
        runner: The runner.
        dataloader: A loader or its config.
        max_iters: Batches of the run.
        val_begin: No evaluation before this iteration.
        val_interval: Iterations between evaluations.
        dynamic_intervals: Argument of mmengine's loop.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        for name, value in (("max_iters", max_iters), ("val_interval", val_interval)):
            if type(value) is not int or value < 1:
                raise ValueError(f"train_cfg.{name} must be a positive integer, got {value!r}")
        _check_intervals(runner, val_interval, max_iters)
        if not isinstance(dataloader, DataLoader):
            dataloader = runner.build_dataloader(dataloader, seed=runner.run_seed)
        loader = numbered_loader(
            dataloader, seed=runner.run_seed, rank=get_rank(), processes=get_world_size()
        )
        super().__init__(runner, loader, max_iters, val_begin, val_interval, dynamic_intervals)
        self.first_iteration = 0  # of this start
        self.first_sample = 0  # number of its first sample, over all processes
        self._evaluated = -1
        self.was_over = False  # for this start nothing was left to do

    def continue_at(self, *, iteration: int, epoch: int, sample: int, evaluated: int) -> None:
        """Begin where a checkpoint ends.

        Args:
            iteration: Number of iterations that are done.
            epoch: Epoch of mmengine, which is 0.
            sample: Samples that have been seen, over all processes.
            evaluated: Iteration after which the latest evaluation was finished.
        """
        self._iter, self._epoch, self._evaluated = iteration, epoch, evaluated
        self.first_iteration = iteration
        batch = self._samples_of_a_batch()
        self.first_sample = -(-sample // batch) * batch

    def position(self, iteration: int) -> dict[str, int]:
        """Return what the order of the data depends on, and how far it has come.

        Args:
            iteration: Number of iterations that are done.
        """
        batch = self._samples_of_a_batch()
        return {
            "seed": self.runner.run_seed,
            "samples_of_a_batch": batch,
            "images": len(self.dataloader.dataset),
            "samples": self.first_sample + (iteration - self.first_iteration) * batch,
        }

    def _samples_of_a_batch(self) -> int:
        return int(self.dataloader.batch_size) * get_world_size()

    def run(self) -> Any:
        """Train to the last iteration.

        Returns:
            The model.

        Raises:
            SystemExit: If a process was asked to stop, after a checkpoint.
        """
        runner, rank = self.runner, get_rank()
        _check_classes(runner.model, self.dataloader.dataset)
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        self.dataloader.sampler.skip(self.first_sample // get_world_size())
        if self._iter > 0 and self._evaluated != self._iter and self._evaluation_is_due():
            runner.logger.info("catching up on the evaluation after iteration %d", self._iter)
            self._evaluate()
        elif self._iter >= self._max_iters:
            self.was_over = True
            finished = SAYS.finished(Path(runner.work_dir), self._max_iters)
            say(finished, runner.logger)
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            batch = next(self.dataloader_iterator)
            seed_all(runner.run_seed, STEP, self._iter, rank)  # loading draws numbers as well
            runner.guard.begin(self._iter, batch)
            self.run_iter(batch)
            if runner.guard.stop_agreed and self._iter < self._max_iters:
                runner.save_and_exit(self._iter)
            self._decide_current_val_interval()
            if self._evaluation_is_due():
                self._evaluate()
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def _evaluation_is_due(self) -> bool:
        return (
            self.runner.val_loop is not None
            and self._iter >= self.val_begin
            and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
        )

    def _evaluate(self) -> None:
        try:
            self.runner.val_loop.run()
        except EvaluationStoppedError:
            self.runner.save_and_exit(self._iter)
        except RuntimeError:  # of a collective: the process that was stopped first is gone
            if self.runner.guard.stop.requested:
                self.runner.save_and_exit(self._iter)
            raise
        self._evaluated = self._iter


@LOOPS.register_module()
class EVAValLoop(ValLoop):
    """mmengine's `ValLoop` (same arguments), which a signal ends between two batches.

    Args:
        runner: The runner.
        dataloader: A loader or its config.
        *args: Further arguments of mmengine's loop.
        **kwargs: Further arguments of the same.
    """

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(dataloader, DataLoader):
            dataloader = runner.build_dataloader(dataloader, seed=runner.run_seed)
        super().__init__(runner, run_loader(dataloader), *args, **kwargs)

    def run(self) -> dict[str, float]:
        """Score what a checkpoint holds: the main process's statistics of batch norm.

        Returns:
            The scores.
        """
        if get_world_size() > 1:
            for value in self.runner.model.buffers():
                broadcast(value)
        scores: dict[str, float] = super().run()
        return scores

    def run_iter(self, idx: int, data_batch: Sequence[dict[str, Any]]) -> None:
        """Predict a batch.

        Args:
            idx: Number of the batch.
            data_batch: The batch.

        Raises:
            EvaluationStoppedError: If this process was asked to stop.
        """
        super().run_iter(idx, data_batch)
        if self.runner.guard.stop.requested:
            raise EvaluationStoppedError


def _check_intervals(runner: Any, val_interval: int, max_iters: int) -> None:
    """Refuse checkpoints between two steps: they would lack the gradients."""
    batches = runner.cfg.get("optim_wrapper", {}).get("accumulative_counts", 1)
    intervals = {"train_cfg.val_interval": val_interval}
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and not hook.by_epoch:
            intervals["default_hooks.checkpoint.interval"] = hook.interval
    for name, interval in intervals.items():
        if 0 < interval < max_iters and interval % batches:
            raise ValueError(
                f"{name}={interval} must be a multiple of optim_wrapper.accumulative_counts="
                f"{batches}: a checkpoint holds no half of a step"
            )


def _check_classes(model: Any, dataset: Any) -> None:
    """Refuse a head of fewer classes, which fails in its loss, or of more, which learns nothing."""
    names = (getattr(dataset, "metainfo", None) or {}).get("classes")
    model = getattr(model, "module", model)
    roi_head = getattr(model, "roi_head", None)
    heads = {
        "decode_head": getattr(model, "decode_head", None),
        "roi_head.bbox_head": getattr(roi_head, "bbox_head", None),
        "roi_head.mask_head": getattr(roi_head, "mask_head", None),
    }
    for place, head in heads.items():
        parts: list[Any] = list(head) if isinstance(head, nn.ModuleList) else [head]
        counts = {int(one.num_classes) for one in parts if hasattr(one, "num_classes")}
        if names and counts and counts != {len(names)}:
            raise ValueError(
                f"model.{place}.num_classes is {', '.join(map(str, sorted(counts)))} and the "
                f"training data have {len(names)} classes: they must be equal"
            )


def end_workers(*loops: Any) -> None:
    """End the workers of loops that have been built.

    Args:
        *loops: Loops, or their configs.
    """
    for loop in loops:
        if isinstance(loop, BaseLoop) and isinstance(loop.dataloader, RunLoader):
            with contextlib.suppress(RuntimeError, OSError):  # the first error counts
                loop.dataloader.end_workers()
