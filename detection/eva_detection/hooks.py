"""Hooks for detectron2's training loop."""

import logging
import sys
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from tqdm import tqdm

from eva_detection.checkpoint import RunCheckpointer
from eva_detection.interruption import EXIT_RUN_AGAIN, StopSignal

logger = logging.getLogger(__name__)


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
