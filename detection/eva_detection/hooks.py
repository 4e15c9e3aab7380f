"""Hooks for detectron2's training loop."""

import sys

from detectron2.engine import HookBase
from tqdm import tqdm


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
