"""Hooks for detectron2's training loop."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter

from eva_data.progress import ProgressBar
from eva_data.saving import explain_os_errors
from eva_detection.evaluation.report import describe_scores
from eva_detection.training.checkpoint import RunCheckpointer
from eva_detection.training.output_folder import TrainingFolder
from eva_report.terminal import is_shown, show
from eva_runs.interruption import EXIT_RUN_AGAIN, StopSignal
from eva_runs.processes import run_on_main_rank
from eva_runs.run_folder import MESSAGES


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
        folder = TrainingFolder(Path(self.checkpointer.save_dir))
        show(MESSAGES.stopped(self.stop.received, folder.describe_saved(iteration + 1)))
        sys.exit(EXIT_RUN_AGAIN)

    def after_train(self) -> None:
        """Let a signal end the final evaluation; the last checkpoint is saved."""
        self.checkpointer.store.writer.wait()
        if self.trainer.iter >= self.trainer.max_iter:
            self.stop.exit_at_once()


class MetricsWriter(JSONWriter):
    """detectron2's writer of `metrics.json`, of which a full disk is an error that names it."""

    _last_write: int  # iteration

    def __init__(self, file: Path, window_size: int) -> None:
        super().__init__(str(file), window_size)
        self.file = file

    def write(self) -> None:
        """Write what is new."""
        with explain_os_errors(self.file):
            super().write()

    def write_scores(self, scores: Mapping[str, float], iteration: int) -> None:
        """Write a line of scores at once, which `write` does not write again."""
        line = {**scores, "iteration": iteration}
        # after the last step the other handle is closed
        with explain_os_errors(self.file), self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, sort_keys=True) + "\n")
        self._last_write = max(self._last_write, iteration)


class Evaluation(HookBase):
    """Scores the model after each period and at the end, as detectron2's `EvalHook` does.

    Scores are written at once. A run that continues begins with the evaluation after the iteration
    of its checkpoint, unless it was over. After an error nothing is evaluated. The main process
    has the writer of `metrics`.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], dict[str, Any]],
        folder: TrainingFolder,
        metrics: MetricsWriter | None,
    ) -> None:
        self.period, self.evaluate, self.folder, self.metrics = period, evaluate, folder, metrics

    def before_train(self) -> None:
        """Evaluate where the run was stopped before it had."""
        done = self.trainer.start_iter
        if done and self._is_due(done):
            logs = self.folder.logs
            if not run_on_main_rank(lambda: logs.is_evaluated(done)):
                self._evaluate(done, at=done - 1)

    def after_step(self) -> None:
        """Evaluate at the end of a period."""
        done = self.trainer.iter + 1
        if self._is_due(done):
            self._evaluate(done, at=done - 1)

    def after_train(self) -> None:
        """Evaluate at the end of the training, not after an error."""
        end = self.trainer.max_iter
        if self.trainer.iter >= end:
            self._evaluate(end, at=end)

    def _is_due(self, done: int) -> bool:
        return self.period > 0 and done % self.period == 0 and done < self.trainer.max_iter

    def _evaluate(self, done: int, *, at: int) -> None:
        """Evaluate after so many iterations, and log the scores `at` an iteration (from 0)."""
        results = self.evaluate()
        scores = flatten_results_dict(results)
        if self.metrics is None:
            return
        if scores:
            self.metrics.write_scores(scores, at)
        # for the terminal and TensorBoard
        self.trainer.storage.put_scalars(**scores, smoothing_hint=False, cur_iter=at)
        self.folder.logs.note_evaluation(done, self.folder.logs.sizes())
        number, total = done // max(1, self.period), self.trainer.max_iter // max(1, self.period)
        line = describe_scores(results)
        if line and at < done and is_shown(number, total):
            show(f"{MESSAGES.unit} {done:,}: {line}")
