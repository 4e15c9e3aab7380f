"""The learning rate of the official runs: detectron2's warm-up, and steps or a cosine."""

import math
from collections.abc import Sequence
from typing import Any

from mmengine.registry import PARAM_SCHEDULERS

from eva_openmmlab.optimizer import IterationLR


@PARAM_SCHEDULERS.register_module()
class EVAWarmupLR(IterationLR):
    """A linear warm-up, then steps of a tenth or a cosine; all places are shares of the run.

    `train_cfg.max_iters` alone decides the length: it changes and everything follows. Values are
    those of detectron2's `WarmupParamScheduler` with `MultiStepParamScheduler` or
    `CosineParamScheduler`.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup: Share of the run until the full rate.
        steps: Shares of the run after which the rate is a tenth of the one before.
        cosine_to: Share of the peak at which a cosine ends; None for steps.
        warmup_factor: Share of the peak at iteration 0.
        **base: As for `IterationLR`.

    Raises:
        ValueError: For places outside of the run, or steps beside a cosine.
    """

    settings = ("warmup", "warmup_factor", "steps", "cosine_to")

    def __init__(
        self,
        optimizer: Any,
        *,
        warmup: float,
        steps: Sequence[float] = (),
        cosine_to: float | None = None,
        warmup_factor: float = 0.001,
        **base: Any,
    ) -> None:
        if not all(0 <= place < 1 for place in (warmup, *steps)) or (steps and cosine_to):
            raise ValueError(
                f"warmup={warmup} and steps={list(steps)} must be shares of the run from 0 to 1, "
                f"and steps do not go with cosine_to={cosine_to}"
            )
        self.warmup, self.warmup_factor = warmup, warmup_factor
        self.steps, self.cosine_to = tuple(steps), cosine_to
        super().__init__(optimizer, **base)

    def factor(self, iteration: int) -> float:
        """Return the share of the peak learning rate, 0 to 1, after some steps."""
        place = iteration / self.iters
        if place >= self.warmup:
            return self._shape(place)
        part = place / self.warmup
        return self._shape(self.warmup) * part + self._shape(0.0) * self.warmup_factor * (1 - part)

    def _shape(self, place: float) -> float:
        if self.cosine_to is None:
            return float(0.1 ** sum(place >= step for step in self.steps))
        return self.cosine_to + 0.5 * (1 - self.cosine_to) * (1 + math.cos(math.pi * place))
