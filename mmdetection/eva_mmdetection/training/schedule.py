"""The learning rate of the official runs: detectron2's warm-up, and steps or a cosine."""

import math
from collections.abc import Sequence
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class EVAWarmupLR(LRSchedulerMixin, _ParamScheduler):
    """A linear warm-up, then steps of a tenth or a cosine; all places are shares of the run.

    `train_cfg.max_iters` alone decides the length: it changes and everything follows. Values are
    those of detectron2's `WarmupParamScheduler` with `MultiStepParamScheduler` or
    `CosineParamScheduler`.

    Args:
        optimizer: Optimizer or its wrapper.
        end: Iterations of the run; the runner fills in `train_cfg.max_iters`.
        warmup: Share of the run until the full rate.
        steps: Shares of the run after which the rate is a tenth of the one before.
        cosine_to: Share of the peak at which a cosine ends; None for steps.
        warmup_factor: Share of the peak at iteration 0.
        begin: Must be 0.
        by_epoch: Must be set to False, by which the runner fills in iterations.
        **base: `last_step` and `verbose`, as in mmengine.

    Raises:
        ValueError: For places outside of the run, steps beside a cosine, another `begin` or
            `by_epoch=True`.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        end: int,
        warmup: float,
        steps: Sequence[float] = (),
        cosine_to: float | None = None,
        warmup_factor: float = 0.001,
        begin: int = 0,
        by_epoch: bool = True,
        **base: Any,
    ) -> None:
        if begin or by_epoch:
            raise ValueError(
                f"EVAWarmupLR counts iterations from 0, got begin={begin}, by_epoch={by_epoch}; "
                "set by_epoch=False and leave begin out"
            )
        if not all(0 <= place < 1 for place in (warmup, *steps)) or (steps and cosine_to):
            raise ValueError(
                f"warmup={warmup} and steps={list(steps)} must be shares of the run from 0 to 1, "
                f"and steps do not go with cosine_to={cosine_to}"
            )
        self.iters, self.warmup, self.warmup_factor = end, warmup, warmup_factor
        self.steps, self.cosine_to = tuple(steps), cosine_to
        super().__init__(optimizer, end=end, by_epoch=False, **base)

    def factor(self, iteration: int) -> float:
        """Return the share of the peak learning rate at an iteration.

        Args:
            iteration: Number of steps taken before it.

        Returns:
            A number from 0 to 1.
        """
        place = iteration / self.iters
        if place >= self.warmup:
            return self._shape(place)
        part = place / self.warmup
        return self._shape(self.warmup) * part + self._shape(0.0) * self.warmup_factor * (1 - part)

    def _shape(self, place: float) -> float:
        if self.cosine_to is None:
            return float(0.1 ** sum(place >= step for step in self.steps))
        return self.cosine_to + 0.5 * (1 - self.cosine_to) * (1 + math.cos(math.pi * place))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a checkpoint's iteration; the config decides the shape of the schedule.

        Args:
            state_dict: Result of `state_dict()`.
        """
        own = ("iters", "warmup", "warmup_factor", "steps", "cosine_to", "end")
        super().load_state_dict(state_dict | {name: getattr(self, name) for name in own})

    def _get_value(self) -> list[float]:
        return [base * self.factor(self.last_step) for base in self.base_values]
