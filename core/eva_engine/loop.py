"""The loop: a model, a data set and a step function; everything else is in the config."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eva_backbone.checkpoints.run_folders import best_of_engine, evaluation_of_best
from eva_engine import distributed
from eva_engine.checkpoints import run_checkpoint
from eva_engine.checkpoints.files import (
    EMA_WEIGHTS,
    WEIGHTS,
    BestWeights,
    read_config,
    read_run,
)
from eva_engine.config import (
    MESSAGES,
    METRICS,
    Recipe,
    RunConfig,
    as_plain,
    describe_saved,
    require,
)
from eva_engine.data.loading import EvaluationInterruptedError, running_loader
from eva_engine.report import Presentation, Presenter
from eva_engine.run_log import RunLog, Size
from eva_engine.steps.engine import (
    MovingAverage,
    TrainingEngine,
    compile_model,
    warn_of_slow_average,
)
from eva_engine.steps.micro_batches import (
    MicroBatches,
    NonfiniteSteps,
    StepFn,
    forward_and_backward,
    reduce_step,
)
from eva_engine.steps.parameter_groups import (
    ParameterGroup,
    check_that_settings_are_used,
    warmup_cosine,
)
from eva_report.first_batch import keep_first_batch
from eva_report.terminal import SHOWN, show
from eva_runs.adapters import Adapters
from eva_runs.data_order import (
    Batch,
    ElasticSampler,
    Permutations,
    SampleDataset,
    SeededDataset,
    build_loader,
    check_same_data,
    choose_micro_batch_size,
    seed_everything,
)
from eva_runs.errors import TooManyUnreadableError
from eva_runs.interruption import EXIT_RUN_AGAIN, StopSignal
from eva_runs.output_folder import require_room_for_checkpoint
from eva_runs.precision import warn_of_slow_bf16
from eva_runs.run_logs import RunLogs
from eva_runs.step_guard import BadSamples, StepGuard

logger = logging.getLogger(__name__)

_NOTABLE = 0.05  # share of the samples that the terminal mentions if an epoch lacks it
EvaluateFn = Callable[[nn.Module, StopSignal], Mapping[str, float]]


@dataclass(kw_only=True)
class TrainingRun:
    """One training run.

    `step_fn` computes loss and metrics (scalars) of a batch on the model's device, given the model
    as DeepSpeed's engine. The loss is a mean over the samples; the names of the metrics are always
    the same. One that needs all micro-batches of a step at once is a `StepWithBeginning`, see
    `eva_engine.steps.micro_batches`. `evaluate` is called on all processes, with the model in
    evaluation mode and the signal that ends it early, and again with the moving average, where
    there is one. A step that takes
    weights beyond their `limits` sets them to these; of a frozen parameter there is no step.
    """

    model: nn.Module  # on the CPU, with its initial weights
    samples: SampleDataset
    step_fn: StepFn
    config: Recipe  # weight decay and layer decay of its optimizer are those of `groups`
    groups: Sequence[ParameterGroup]
    device: torch.device  # of this process, from `distributed.start`
    evaluate: EvaluateFn | None = None
    results: Sequence[str] = ()  # names of its results, of which `run.best_metric` is one
    collate: Callable[[list[Any]], Any] | None = None  # makes a batch; None stacks tensors
    flops_per_sample: float | None = None  # of the model, forward and backward
    presentation: Presentation = field(default_factory=lambda: Presentation(task="Training"))
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # smallest, largest
    # further entries for the record of the recipe, such as the names of the classes
    notes: Mapping[str, Any] = field(default_factory=dict)
    adapters: Adapters | None = None  # of the model

    def __post_init__(self) -> None:
        self._run, self._optimizer = self.config.run, self.config.optimizer
        self._recipe = as_plain(self.config) | dict(self.notes)

    def start(self) -> None:
        """Train to the end, or to a signal; the caller has claimed the output folder.

        Raises:
            ValueError: If the output folder has a run that is not to be continued, or cannot be.
            NonFiniteError: If loss or gradients are not finite, as `run.nonfinite` says.
            TooManyUnreadableError: After `run.max_bad_samples`.
            SystemExit: With `EXIT_RUN_AGAIN`, after a signal and a checkpoint.
        """
        run, metric = self._run, self._run.best_metric
        self._logs = RunLogs(run.output, METRICS)
        results = self.results if self.evaluate else ()
        require(
            not metric or metric in results,
            f"best_metric={metric} is not a result of the evaluation, which has "
            f"{', '.join(results) or 'none without validation data'}; '' keeps no best weights",
        )
        check_that_settings_are_used(self.groups, self._optimizer)
        self._log: RunLog | None = None
        self._worked, self._evaluated = False, set[int]()  # steps (from 0) of this start
        self._signal = StopSignal()
        with contextlib.ExitStack() as stack:
            self._prepare()
            stack.enter_context(self._signal.listen())  # to the end: loaders are shut down in it
            loader = build_loader(
                SeededDataset(self.samples, seed=self._run.seed),
                self._batches,
                workers=run.workers,
                timeout=run.loader_timeout,
                collate=self.collate,
                pin_memory=self.device.type == "cuda",
            )
            self._stream: Iterator[Batch] = stack.enter_context(running_loader(loader))
            if distributed.rank() == 0:
                record = self._record
                size = Size(self._total, record["step_batch"], record["processes"], self.device)
                presenter = Presenter(self.presentation, self._run, self._recipe, size)
                presenter.open(self._start, self._newest)
                if self._start == self._total and presenter.lacks_page():
                    self._logs.forget_evaluation()
                self._logs.cut(self._start, self._log_sizes)
                self._log = RunLog(
                    self._run, size, start_step=self._start, flops_per_sample=self.flops_per_sample
                )
                stack.callback(self._log.close)
            self._train()
            if self._worked:
                self._evaluate_earlier_best()
        if self._log:
            presenter.close(worked=self._worked)

    def _prepare(self) -> None:
        """Refuse everything that can be refused, before anything is changed."""
        processes, size = distributed.world_size(), len(self.samples)
        check_same_data(self.samples)
        run = self._run
        self._checkpoints = run_checkpoint.RunCheckpoints(
            run.output, keep=run.keep_checkpoints, config=self._recipe
        )
        checkpoint = run_checkpoint.find_checkpoint(self._checkpoints, run, size)
        self._newest, self._saved = checkpoint, checkpoint is not None
        saved = read_run(checkpoint) if checkpoint else {}
        if checkpoint:
            self._require_same_classes(checkpoint / WEIGHTS)
        run = _resume_config(self.config, saved) if saved else _fit_config(run, size, processes)
        self._run, step_batch = run, run.batch_size * run.accumulate * processes
        self._every = run.checkpoint_every or size // step_batch
        self._start = saved.get("step", 0)
        self._log_sizes = saved.get("logs") if saved else {}
        bad_samples = BadSamples(run.max_bad_samples, saved.get("bad_samples", ()))
        self._guard = StepGuard(MESSAGES, self._signal, self.device, bad_samples)
        self._nonfinite = NonfiniteSteps(
            run, self.samples, in_a_row=saved.get("skipped_in_a_row", 0)
        )
        self._batches = ElasticSampler(
            sampler=Permutations(size, step_batch, run.seed),
            step_batch=step_batch,
            micro_batch=run.batch_size,
            start=self._start,
            interleaved=True,
        )
        self._steps_per_epoch = len(self._batches)
        self._total = run.epochs * self._steps_per_epoch
        if self._start > self._total:
            raise ValueError(
                f"{checkpoint} is after step {self._start}, and run.epochs={run.epochs} are "
                f"{self._total} steps: raise it, or choose another run.output"
            )
        left = size % step_batch
        if left:
            message = f"{left:,} of {size:,} samples are left out of each epoch, others each time: "
            shown = SHOWN if left >= _NOTABLE * size else None
            logger.info("%s", f"{message}they fill no step of {step_batch:,}", extra=shown)
        self._lr(0)
        warn_of_slow_average(run.ema_decay, self._total)
        warn_of_slow_bf16(run.precision, self.device)
        self._record = {
            "seed": run.seed,
            "processes": processes,
            "precision": run.precision,
            "optimizer": self._optimizer.name,
            "began_with": saved.get("began_with", processes),
            "zero_stage": run.zero_stage,
            "step_batch": step_batch,
            "samples_of_data": len(self.samples),
            "lora": self.adapters and self.adapters.identity,
        }
        if saved:
            run_checkpoint.mention_changes(saved, self._record, self.config)
        self._build(checkpoint)

    def _require_same_classes(self, weights: Path) -> None:
        """Refuse data whose labels mean other classes than those that a head has learned."""
        noted = (read_config(weights) or {}).get("class_names") if weights.is_file() else None
        now = [*self.notes.get("class_names", ())]
        if noted and now and noted != now:
            before, after = next(pair for pair in zip_longest(noted, now) if pair[0] != pair[1])
            raise ValueError(
                f"the run has other classes than the data, such as {before} where those have "
                f"{after}: continue it with its own data, or choose another run.output"
            )

    def _lr(self, step: int) -> float:
        return warmup_cosine(
            step,
            peak=self._optimizer.lr,
            end=self._optimizer.min_lr,
            warmup_steps=round(self._optimizer.warmup_epochs * self._steps_per_epoch),
            total_steps=self._total,
        )

    def _build(self, checkpoint: Path | None) -> None:
        run, model = self._run, self.model.to(self.device)
        require_room_for_checkpoint(run.output, model)
        self._engine = TrainingEngine(
            model,
            groups=self.groups,
            optimizer=self._optimizer,
            run=run,
            limits=self.limits,
            adapters=self.adapters,
        )
        self._average = MovingAverage(self._engine, decay=run.ema_decay) if run.ema_decay else None
        if checkpoint is not None:
            run_checkpoint.restore(checkpoint, self._engine, self._average)
        best = BestWeights(
            run.output, metric=run.best_metric, begins=not self._start, config=self._recipe
        )
        self._best = best if run.best_metric else None
        if run.compile:
            compile_model(model)

    def _train(self) -> None:
        self._engine.engine.train()
        if self._start >= self._total:
            show(MESSAGES.finished(self._run.output, self._total))
        pending = self._start and not distributed.gather(self._logs.is_evaluated(self._start))[0]
        if pending and self._evaluates_after(self._start) and self._evaluate(self._start - 1):
            self._end_early(self._start)
        for step in range(self._start, self._total):
            self._worked = True
            self._step(step)
            self._finish_save(wait=False)
            done, stop = step + 1, self._guard.stopping
            last = done == self._total
            self._saved = False
            if stop or last or done % self._every == 0:
                self._save(done)
            if stop and not last:
                self._end_early(done)
            if self._evaluates_after(done) and self._evaluate(step):
                self._end_early(done)
        self._finish_save(wait=True)

    def _end_early(self, done: int) -> None:
        """End as asked by a signal, with a checkpoint."""
        if not self._saved:
            self._save(done)
        self._finish_save(wait=True)
        show(MESSAGES.stopped(self._signal.received, describe_saved(self._newest)))
        sys.exit(EXIT_RUN_AGAIN)

    def _evaluates_after(self, done: int) -> bool:
        period = self._run.evaluate_every * self._steps_per_epoch
        at_period = period > 0 and done % period == 0
        return self.evaluate is not None and (done >= self._total or at_period)

    def _step(self, step: int) -> None:
        """Carry out one optimizer step."""
        lr = self._lr(step)
        self._engine.set_learning_rate(lr)
        micro_batches = MicroBatches(
            self._stream,
            count=self._run.accumulate,
            device=self.device,
            seeds=(self._run.seed, step),
            began_with=self._record["began_with"],
        )
        if self._log and not step:
            batch = next(iter(micro_batches))
            with self._paused():
                keep_first_batch(self._run.output, lambda: self.presentation.first_batch(batch))
        sums = forward_and_backward(self._engine, self.step_fn, micro_batches)
        try:
            values, finite, own_is_finite = reduce_step(sums, micro_batches.taken, self._guard)
        except TooManyUnreadableError:  # on all processes
            self._finish_save(wait=True)
            raise
        finite = self._engine.gradients_are_finite() and finite
        if not finite:
            self._finish_save(wait=True)
            self._nonfinite.meet(step, values["loss"], micro_batches, own_is_finite=own_is_finite)
        norm, applied = self._engine.step(skip=not finite)
        if finite:
            self._nonfinite.in_a_row = 0
        if applied and self._average:
            self._average.update()
        if self._log:
            values |= {"lr": lr, "grad_norm": norm, "epoch": step // self._steps_per_epoch}
            if self._run.precision == "fp16":
                values["loss_scale"] = self._engine.loss_scale
            if self._guard.bad_samples.names:
                values["bad_samples"] = len(self._guard.bad_samples.names)
            self._log.step(step, values | ({} if applied else {"skipped": 1}))

    def _paused(self) -> contextlib.AbstractContextManager[None]:
        return self._log.paused() if self._log else contextlib.nullcontext()

    def _save(self, done: int) -> None:
        record = self._record | {
            "step": done,
            "bad_samples": sorted(self._guard.bad_samples.names),
            "skipped_in_a_row": self._nonfinite.in_a_row,
            "logs": self._logs.sizes(),
        }
        self._finish_save(wait=True)
        with self._paused():
            self._checkpoints.begin_save(self._engine, self._average, record)
        self._saved = True

    def _finish_save(self, *, wait: bool) -> None:
        with self._paused():
            saved = self._checkpoints.finish_save(wait=wait)
        if saved is not None:
            self._newest = saved
            logger.info("saved %s", saved.name)

    def _evaluate(self, step: int) -> bool:
        """Evaluate; whether a signal asks to stop, and possibly left the evaluation for later."""
        self._finish_save(wait=True)  # an evaluation forks workers
        model = self._engine.engine
        model.eval()
        self._engine.share_buffers()
        try:
            with self._paused():
                results = self._results(WEIGHTS, step)
                if self._average:
                    with self._average.applied():
                        averaged = self._results(EMA_WEIGHTS, step)
                    results |= {f"ema_{name}": value for name, value in averaged.items()}
        except EvaluationInterruptedError:
            show(f"evaluation of step {step + 1} is left for the next start")
            return True
        finally:
            model.train()
        self._evaluated.add(step)
        if self._log:  # after the best weights
            self._log.evaluation(step, results)
            self._logs.note_evaluation(step + 1, self._logs.sizes())
        self._worked = True
        return any(distributed.gather(self._signal.requested)) and step + 1 < self._total

    def _results(self, name: str, step: int) -> dict[str, float]:
        """Evaluate the engine's weights, and keep them if they are the best of a file's name."""
        results = self._score(step)
        if self._best:
            self._best.consider(self._engine, name, step=step, results=results)
        return results

    @torch.no_grad()
    def _score(self, step: int) -> dict[str, float]:
        assert self.evaluate is not None
        # training's numbers do not depend on it, and its own not on where the run was resumed
        seed_everything(self._run.seed, step, distributed.rank(), purpose="evaluation")
        return dict(self.evaluate(self._engine.engine, self._signal))

    def _evaluate_earlier_best(self) -> None:
        """Evaluate the best weights for the page, if an earlier start has found them."""
        folder = self._run.output
        file = distributed.gather(best_of_engine(folder))[0] if self._best else None
        step = int(evaluation_of_best(folder, file)["step"]) if file else -1
        if file is None or step in self._evaluated:
            return
        run_checkpoint.load_weights(file, self._engine)
        self._engine.engine.eval()
        with self._paused(), contextlib.suppress(EvaluationInterruptedError):
            self._score(step)


def _fit_config(run: RunConfig, size: int, processes: int) -> RunConfig:
    """Shrink a step that the samples do not fill; an even batch stays even, for mixup."""
    batch, accumulate = run.batch_size, run.accumulate
    if processes <= size < batch * accumulate * processes:
        batch = min(batch, size // processes)
        batch -= batch % 2 if batch > 1 and run.batch_size % 2 == 0 else 0
        accumulate = min(accumulate, size // (batch * processes))
        show(
            f"{size:,} samples do not fill a step of {run.batch_size} x {run.accumulate} x "
            f"{processes} (batch_size x accumulate x processes): batch_size is {batch} and "
            f"accumulate {accumulate}"
        )
    return replace(run, batch_size=batch, accumulate=accumulate)


def _resume_config(config: Recipe, saved: Mapping[str, Any]) -> RunConfig:
    """Divide the step of a checkpoint among the processes.

    Raises:
        ValueError: If it cannot be divided.
    """
    run, processes = config.run, distributed.world_size()
    samples = saved["step_batch"]

    def fits(size: int) -> bool:
        with contextlib.suppress(ValueError):  # mixup wants an even batch
            replace(config, run=replace(run, batch_size=size))  # type: ignore[type-var]
            return True
        return False

    batch = choose_micro_batch_size(samples, processes, largest=run.batch_size, fits=fits)
    before, accumulate = saved["processes"], samples // processes // batch
    if (batch, accumulate, before) != (run.batch_size, run.accumulate, processes):
        show(
            f"continued with processes={processes} (before: {before}), batch_size={batch} and "
            f"accumulate={accumulate}: steps of {samples:,} samples, as before"
        )
    return replace(run, batch_size=batch, accumulate=accumulate, seed=saved["seed"])
