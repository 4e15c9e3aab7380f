"""Hooks for detectron2's training loop."""

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch.distributed
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from eva_data.progress import ProgressBar
from eva_detection.training.agreement import OtherProcessError
from eva_detection.training.announcements import evaluation_line, show, spread
from eva_detection.training.checkpoint import RunCheckpointer
from eva_detection.training.output_folder import SAYS, last_checkpoint, was_logged
from eva_runs.interruption import EXIT_RUN_AGAIN, StopSignal

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_DONE, _STOPPED = b"done", b"stopped by a signal"
_WINDOW = 20  # iterations of the writers' median
_SINGLE = ("lr", "bad_images")  # scalars that the writers do not smooth
_evaluations = itertools.count()  # the same on all processes, which evaluate together


class TrainingProgress(HookBase):
    """A progress bar of the iterations, with the latest loss."""

    def __init__(self) -> None:
        self._bar: ProgressBar | None = None

    def before_train(self) -> None:
        """Open the bar at the iteration that training starts from."""
        start = self.trainer.start_iter
        if start < self.trainer.max_iter:
            self._bar = ProgressBar(self.trainer.max_iter, what="training", start=start)

    def after_step(self) -> None:
        """Advance, with the latest total loss."""
        assert self._bar is not None
        latest = self.trainer.storage.latest().get("total_loss")
        self._bar.update(loss="-" if latest is None else f"{latest[0]:.3f}")

    def after_train(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


class StopOnSignal(HookBase):
    """Save and exit at the end of the step in which a process was asked to stop.

    Stands after the periodic checkpoints and before the evaluation, which would outlast the time
    that a batch system grants.

    Args:
        checkpointer: Writes on the main process.
        stop: The signals of this process; the trainer shares them with the others.
    """

    def __init__(self, checkpointer: RunCheckpointer, stop: StopSignal) -> None:
        self.checkpointer = checkpointer
        self.stop = stop

    def after_step(self) -> None:
        """Save (unless just done) and exit, on all processes together."""
        iteration = self.trainer.iter
        if not self.trainer.stop_agreed or iteration + 1 >= self.trainer.max_iter:
            return
        if self.checkpointer.saved_iteration != iteration:
            self.checkpointer.save("model_stopped", iteration=iteration)
        comm.synchronize()  # the first process that ends takes the others along
        name = last_checkpoint(Path(self.checkpointer.save_dir))
        saved = SAYS.saved(name.name if name else "", done=iteration + 1)
        show([SAYS.stopped(self.stop.received, saved)])
        raise SystemExit(EXIT_RUN_AGAIN)

    def after_train(self) -> None:
        """Let a signal end the final evaluation; the last checkpoint is saved."""
        if self.trainer.iter >= self.trainer.max_iter:
            self.stop.exit_at_once()


class MetricsHistory(HookBase):
    """Carries over what `metrics.json` is written from, so that it continues seamlessly."""

    def __init__(self) -> None:
        self._restored: dict[str, list[list[float]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return recent values of each scalar, except times and scores, with their iterations."""
        storage = getattr(self.trainer, "storage", None)
        if storage is None:
            return {}
        smoothed = storage.smoothing_hints()
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
        for name, values in self._restored.items():
            for value, at in values:
                self.trainer.storage.put_scalar(
                    name, value, smoothing_hint=name not in _SINGLE, cur_iter=int(at)
                )


class Evaluation(hooks.EvalHook):
    """detectron2's `EvalHook`, safe against interruptions.

    Scores are written at once. A run that continues makes up for what was cut off: the evaluation
    after the iteration of its checkpoint, and that iteration's line in `metrics.json`. After an
    error in the last iteration nothing is evaluated, as after one in any other.

    Args:
        period: Iterations between evaluations; 0 for one at the end alone.
        evaluate: Returns the scores; called on all processes.
        folder: The run's output folder.
        writers: Writers of metrics on the main process, without the log's.
        log_period: Iterations between lines of `metrics.json`.
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
        super().__init__(period, lambda: self._keep(evaluate()))
        self._results: dict[str, Any] = {}
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
            self._write()
        self.trainer.storage.iter = done

    def _keep(self, results: dict[str, Any]) -> dict[str, Any]:
        self._results = results
        return results

    def _write(self) -> None:
        for writer in self.writers:
            writer.write()

    def _do_eval(self) -> None:
        super()._do_eval()
        if self.trainer.iter >= self.trainer.max_iter:  # written and said after training
            return
        self._write()
        done = self.trainer.storage.iter + 1
        every = self._period * spread(self._period, self.trainer.max_iter)
        if self._results and done % every == 0:
            show([evaluation_line(done, self._results)])

    def after_train(self) -> None:
        """Evaluate at the end of the training, not after an error."""
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()
        else:
            del self._func  # as there: it may refer to the trainer


def leave_together(evaluate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Evaluate, and return once the main process has scored; for detectron2's `EvalHook`.

    Otherwise the others would sit in the hook's barrier, and NCCL's timeout end them, while LVIS is
    scored. Here they poll the key-value store of the process group, which needs no shared folder,
    lets signals through, says that the main process has failed, and is gone if it was killed,
    because it serves the store (under torchrun the launcher does, and ends the others itself).

    Args:
        evaluate: Returns the scores on the main process; called on all.

    Returns:
        What `evaluate` returned.

    Raises:
        OtherProcessError: A RuntimeError, on the other processes, if the main one failed.
        SystemExit: With `EXIT_RUN_AGAIN`, on all processes, if a signal ended the main one.
    """
    if comm.get_world_size() == 1:
        return evaluate()
    world = torch.distributed.group.WORLD
    assert world is not None
    store = world.get_group_store()
    key = f"eva_detection/evaluation/{next(_evaluations)}"
    if not comm.is_main_process():
        results = evaluate()
        _wait_for_main_process(store, key)
        return results
    try:
        results = evaluate()
    except BaseException as error:
        stopped = isinstance(error, SystemExit) and error.code == EXIT_RUN_AGAIN
        with contextlib.suppress(RuntimeError):  # the first error counts
            store.set(key, _STOPPED.decode() if stopped else f"{type(error).__name__}: {error}")
            time.sleep(3 * _POLL_SECONDS)  # the store ends with this process
        raise
    store.set(key, _DONE.decode())
    return results


def _wait_for_main_process(store: Any, key: str) -> None:
    try:
        while not store.check([key]):
            time.sleep(_POLL_SECONDS)
        outcome = store.get(key)
    except RuntimeError as error:
        raise RuntimeError(
            "the main process has ended in the evaluation: see its log, and whether the system "
            "has killed it, as for want of memory"
        ) from error
    if outcome == _STOPPED:
        raise SystemExit(EXIT_RUN_AGAIN)
    if outcome != _DONE:
        raise OtherProcessError(
            f"the evaluation has failed on the main process: {outcome.decode()}; see its log"
        )
