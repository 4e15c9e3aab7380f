"""Hooks for detectron2's training loop."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from eva_data.progress import ProgressBar
from eva_detection.training.checkpoint import RunCheckpointer
from eva_detection.training.log import evaluation_line, shown_every
from eva_detection.training.output_folder import MESSAGES, last_checkpoint, was_logged
from eva_report.terminal import show
from eva_runs.interruption import EXIT_RUN_AGAIN, StopSignal

logger = logging.getLogger(__name__)

_WINDOW = 20  # iterations of the writers' median
_SINGLE = ("lr", "bad_images")  # scalars that the writers do not smooth


class TrainingProgress(HookBase):
    """A progress bar of the iterations, with the latest loss."""

    def before_train(self) -> None:
        """Open the bar at the iteration that training starts from."""
        start, end = self.trainer.start_iter, self.trainer.max_iter
        self._bar = ProgressBar(end, title="training", start=start) if start < end else None

    def after_step(self) -> None:
        """Advance, with the latest total loss."""
        assert self._bar is not None
        self._bar.update(loss=f"{self.trainer.storage.latest()['total_loss'][0]:.3f}")

    def after_train(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


class StopOnSignal(HookBase):
    """Save and exit at the end of the step in which a process was asked to stop.

    It stands before the evaluation, which would outlast the time that a batch system grants.
    """

    def __init__(self, checkpointer: RunCheckpointer, stop: StopSignal) -> None:
        self.checkpointer, self.stop = checkpointer, stop

    def after_step(self) -> None:
        """Save (unless just done) and exit, on all processes together."""
        iteration = self.trainer.iter
        self.checkpointer.writer.check()
        if not self.trainer.guard.stopping or iteration + 1 >= self.trainer.max_iter:
            return
        if self.checkpointer.saved_iteration != iteration:
            self.checkpointer.save("model_stopped", iteration=iteration)
        self.checkpointer.writer.wait()
        comm.synchronize()  # the first process that ends takes the others along
        name = last_checkpoint(Path(self.checkpointer.save_dir))
        saved = MESSAGES.saved(name.name if name else "", done=iteration + 1)
        show(MESSAGES.stopped(self.stop.received, saved))
        sys.exit(EXIT_RUN_AGAIN)

    def after_train(self) -> None:
        """Let a signal end the final evaluation; the last checkpoint is saved."""
        self.checkpointer.writer.wait()
        if self.trainer.iter >= self.trainer.max_iter:
            self.stop.exit_at_once()


class MetricsHistory(HookBase):
    """Carries over what `metrics.json` is written from, so that it continues seamlessly."""

    _restored: Mapping[str, list[list[float]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return recent values of each scalar, except times and scores, with their iterations."""
        storage, smoothed = self.trainer.storage, self.trainer.storage.smoothing_hints()
        return {
            name: [[float(value), int(at)] for value, at in buffer.values()[-_WINDOW:]]
            for name, buffer in storage.histories().items()
            if (smoothed[name] and "time" not in name and "eta" not in name) or name in _SINGLE
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`, when training starts."""
        self._restored = state_dict

    def before_train(self) -> None:
        """Fill the new storage."""
        put = self.trainer.storage.put_scalar
        for name, values in self._restored.items():
            for value, at in values:
                put(name, value, smoothing_hint=name not in _SINGLE, cur_iter=int(at))


class Evaluation(hooks.EvalHook):
    """detectron2's `EvalHook`, safe against interruptions.

    Scores go to the writers at once. A run that continues makes up for what was cut off: the
    evaluation after the iteration of its checkpoint, and that iteration's line in `metrics.json`.
    After an error in the last iteration nothing is evaluated, as after one in any other.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], dict[str, Any]],
        *,
        folder: Path,
        writers: Sequence[EventWriter] = (),
        log_period: int = 20,
    ) -> None:
        super().__init__(period, evaluate)
        self.folder, self.writers, self.log_period = folder, writers, log_period

    def before_train(self) -> None:
        """Evaluate and write what an interruption has cut off."""
        done, end = self.trainer.start_iter, self.trainer.max_iter
        if not 0 < done < end:
            return
        evaluates = self._period > 0 and done % self._period == 0
        writes = done % self.log_period == 0
        if comm.is_main_process():
            evaluates = evaluates and not was_logged(self.folder, done - 1, scores=True)
            writes = writes and not was_logged(self.folder, done - 1)
        evaluates, writes = comm.all_gather((evaluates, writes))[0]
        self.trainer.storage.iter = done - 1
        if evaluates:
            logger.info("Making up for the evaluation after iteration %d", done)
            self._do_eval()
        if evaluates or writes:
            for writer in self.writers:
                writer.write()
        self.trainer.storage.iter = done

    def _do_eval(self) -> None:
        super()._do_eval()
        if self.trainer.iter >= self.trainer.max_iter:  # written and said after training
            return
        for writer in self.writers:
            writer.write()
        done, latest = self.trainer.storage.iter + 1, self.trainer.storage.latest()
        results = {n.removesuffix("/AP"): {"AP": latest[n][0]} for n in latest if n.endswith("/AP")}
        if results and done % shown_every(self._period, self.trainer.max_iter) == 0:
            show(evaluation_line(done, results))

    def after_train(self) -> None:
        """Evaluate at the end of the training, not after an error."""
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()
        else:
            del self._func  # as there: it may refer to the trainer
