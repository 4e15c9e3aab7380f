"""Hooks for detectron2's training loop."""

import json
import logging
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from eva_data.progress import ProgressBar
from eva_data.saving import explain_os_errors
from eva_detection.evaluation.report import describe_scores
from eva_detection.training.checkpoint import RunCheckpointer
from eva_detection.training.output_folder import MESSAGES, METRICS, last_checkpoint, logs_of
from eva_report.terminal import show
from eva_runs.interruption import EXIT_RUN_AGAIN, StopSignal
from eva_runs.processes import run_on_main_rank

logger = logging.getLogger(__name__)

_LINES = 12  # of evaluations on the terminal, however many there are


def progress_bar(start: int, end: int) -> HookBase:
    """Make the hook of a bar of the iterations, with the latest loss."""
    bar = ProgressBar(end, title="training", start=start)

    def update(trainer: Any) -> None:
        bar.update(loss=f"{trainer.storage.latest()['total_loss'][0]:.3f}")

    return hooks.CallbackHook(after_step=update, after_train=lambda _: bar.close())


class StopOnSignal(HookBase):
    """Save and exit at the end of the step in which a process was asked to stop.

    It stands before the evaluation, which would outlast the time that a batch system grants.
    """

    def __init__(self, checkpointer: RunCheckpointer, stop: StopSignal) -> None:
        self.checkpointer, self.stop = checkpointer, stop

    def after_step(self) -> None:
        """Save (unless just done) and exit, on all processes together."""
        iteration = self.trainer.iter
        self.checkpointer.store.writer.check()
        if not self.trainer.guard.stopping or iteration + 1 >= self.trainer.max_iter:
            return
        if self.checkpointer.saved_iteration != iteration:
            self.checkpointer.save("model_stopped", iteration=iteration)
        self.checkpointer.store.writer.wait()
        comm.synchronize()  # the first process that ends takes the others along
        name = last_checkpoint(Path(self.checkpointer.save_dir))
        saved = MESSAGES.saved(name.name if name else "", done=iteration + 1)
        show(MESSAGES.stopped(self.stop.received, saved))
        sys.exit(EXIT_RUN_AGAIN)

    def after_train(self) -> None:
        """Let a signal end the final evaluation; the last checkpoint is saved."""
        self.checkpointer.store.writer.wait()
        if self.trainer.iter >= self.trainer.max_iter:
            self.stop.exit_at_once()


class MetricsFile(HookBase):
    """Writes `metrics.json`, a JSON object a line, as detectron2 does, but before a checkpoint.

    Losses are medians of the iterations since the line before.
    """

    def __init__(self, folder: Path, period: int) -> None:
        self.logs, self._file, self._period = logs_of(folder), folder / METRICS, period
        self._written: dict[str, int] = {}  # name -> iteration

    def after_step(self) -> None:
        """Write the line of an iteration, if it has one."""
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self.write()

    def write(self) -> None:
        """Write what is new, in lines of its iterations."""
        storage, lines = self.trainer.storage, defaultdict[int, dict[str, float]](dict)
        hints = storage.smoothing_hints()
        for name, buffer in storage.histories().items():
            values, before = buffer.values(), self._written.get(name, -1)
            latest, at = values[-1]
            if at > before and name != "eta_seconds":  # of the terminal, behind this line
                new = [value for value, iteration in values[-self._period :] if iteration > before]
                lines[at][name] = float(np.median(new) if hints[name] else latest)
                self._written[name] = int(at)
        with explain_os_errors(self._file), self._file.open("a", encoding="utf-8") as stream:
            for iteration in sorted(lines):
                line = lines[iteration] | {"iteration": int(iteration)}
                stream.write(json.dumps(line, sort_keys=True) + "\n")


class Evaluation(hooks.EvalHook):
    """detectron2's `EvalHook`, safe against interruptions.

    Scores are written at once. A run that continues begins with the evaluation after the iteration
    of its checkpoint, unless it was over. After an error in the last iteration nothing is
    evaluated, as after one in any other.
    """

    def __init__(
        self, period: int, evaluate: Callable[[], dict[str, Any]], *, metrics: MetricsFile
    ) -> None:
        super().__init__(period, evaluate)
        self.metrics = metrics

    def before_train(self) -> None:
        """Evaluate where the run was stopped before it had."""
        done, end = self.trainer.start_iter, self.trainer.max_iter
        due = 0 < done < end and self._period > 0 and done % self._period == 0
        if due and not run_on_main_rank(lambda: self.metrics.logs.is_evaluated(done)):
            logger.info("begins with the evaluation after iteration %d", done)
            self.trainer.storage.iter = done - 1
            self._do_eval()
            self.trainer.storage.iter = done

    def _do_eval(self) -> None:
        super()._do_eval()
        storage, end = self.trainer.storage, self.trainer.max_iter
        done = min(storage.iter + 1, end)
        if not comm.is_main_process():
            return
        self.metrics.write()
        self.metrics.logs.note_evaluation(done, self.metrics.logs.sizes())
        shown_every = self._period * math.ceil(end / self._period / _LINES) if self._period else end
        if done == end or done % shown_every:  # that of the end is said behind it
            return
        latest = storage.latest()
        results = {n.removesuffix("/AP"): {"AP": latest[n][0]} for n in latest if n.endswith("/AP")}
        if results:
            show(f"{MESSAGES.unit} {done:,}: {describe_scores(results)}")

    def after_train(self) -> None:
        """Evaluate at the end of the training, not after an error."""
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()
        else:
            del self._func  # as there: it may refer to the trainer
