"""Hooks for detectron2's training loop."""

import contextlib
import itertools
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import torch.distributed
from detectron2.engine import HookBase
from detectron2.utils import comm
from tqdm import tqdm

from eva_detection.checkpoint import RunCheckpointer
from eva_detection.interruption import EXIT_RUN_AGAIN, StopSignal

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_DONE, _STOPPED = b"done", b"stopped by a signal"
_evaluations = itertools.count()  # the same on all processes, which evaluate together


class ProgressBar(HookBase):
    """A progress bar on standard error; one line every few seconds where that is no terminal.

    Args:
        description: Text in front of the bar.
    """

    def __init__(self, description: str = "training") -> None:
        self.description = description
        self._bar: tqdm | None = None

    def before_train(self) -> None:
        """Open the bar at the iteration that training starts from."""
        self._bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            desc=self.description,
            unit="it",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 15,
        )

    def after_step(self) -> None:
        """Advance, with the latest total loss."""
        assert self._bar is not None
        latest = self.trainer.storage.latest().get("total_loss")
        if latest is not None:
            self._bar.set_postfix(loss=f"{latest[0]:.3f}", refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        """Close the bar."""
        assert self._bar is not None
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
        logger.warning(
            "Stopped by a signal after iteration %d; the same command with --resume continues",
            iteration,
        )
        raise SystemExit(EXIT_RUN_AGAIN)

    def after_train(self) -> None:
        """The last checkpoint is written: a signal may end the evaluation that follows."""
        if self.trainer.iter >= self.trainer.max_iter:
            self.stop.exit_at_once()


class MetricsHistory(HookBase):
    """Carries over what `metrics.json` takes the medians of, so that it continues seamlessly.

    Args:
        window: Iterations of the writers' median.
    """

    def __init__(self, window: int = 20) -> None:
        self.window = window
        self._restored: dict[str, list[list[float]]] = {}

    def state_dict(self) -> dict[str, Any]:
        """The latest values of each smoothed scalar, with their iterations."""
        storage = getattr(self.trainer, "storage", None)
        if storage is None:
            return {}
        smoothed = storage.smoothing_hints()
        return {
            name: [[float(value), int(at)] for value, at in buffer.values()[-self.window :]]
            for name, buffer in storage.histories().items()
            if smoothed[name] and "time" not in name and "eta" not in name
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`, when training starts."""
        self._restored = state_dict

    def before_train(self) -> None:
        """Fill the new storage."""
        for name, values in self._restored.items():
            for value, at in values:
                self.trainer.storage.put_scalar(name, value, cur_iter=int(at))


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
        RuntimeError: On the other processes, if the main one failed.
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
        raise RuntimeError(
            f"the evaluation has failed on the main process: {outcome.decode()}; see its log"
        )
