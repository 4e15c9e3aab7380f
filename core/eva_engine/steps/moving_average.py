"""Exponential moving average of the weights, in float32, each process for the part it keeps."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from eva_engine.steps.deepspeed_engine import TrainingEngine

logger = logging.getLogger(__name__)

_FELT = 0.05  # share of the initial weights at the end of a run


def warn_of_slow_average(decay: float, steps: int) -> None:
    """Warn if a run is too short for its moving average.

    Args:
        decay: Weight of the past; 0 for no average.
        steps: Steps of the complete run.
    """
    share = decay**steps if decay else 0.0
    if share > _FELT:
        logger.warning(
            "after all %d steps the moving average still holds %.0f %% of the initial weights; "
            "with run.ema_decay=%.4g it would hold %.0f %%",
            *(steps, 100 * share, _FELT ** (1 / steps), 100 * _FELT),
        )


class MovingAverage:
    """Average of the master weights (buffers are taken as they are).

    Args:
        engine: The engine that trains.
        decay: Weight of the past.
    """

    def __init__(self, engine: TrainingEngine, *, decay: float) -> None:
        self.engine = engine
        self.decay = decay
        self._parts = {name: part.float().clone() for name, part in self._master()}

    def update(self) -> None:
        """Add the present weights, after a step."""
        masters = [part.float() for _, part in self._master()]
        torch._foreach_lerp_(list(self._parts.values()), masters, 1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return this process's part."""
        return {name: part.cpu() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore this process's part.

        Args:
            state: State from `state_dict`.

        Raises:
            ValueError: If it belongs to another model or another number of processes.
        """
        shapes = {name: part.shape for name, part in self._parts.items()}
        if {name: part.shape for name, part in state.items()} != shapes:
            raise ValueError("the saved moving average is of another model or number of processes")
        for name, part in self._parts.items():
            part.copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model's weights while the block runs."""
        kept = {name: part.clone() for name, part in self._master()}
        self._write(self._parts)
        try:
            yield
        finally:
            self._write(kept)

    def _master(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter, part in self.engine.master_weights():
            if parameter.requires_grad and part is not None:
                yield name, part

    def _write(self, parts: Mapping[str, Tensor]) -> None:
        for name, part in self._master():
            part.copy_(parts[name])
        self.engine.refresh_weights()
