"""The learning rate of the official runs: mmcv 1's `poly` policy with its linear warm-up."""

from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmseg.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupPolyLR(LRSchedulerMixin, _ParamScheduler):
    """Polynomial decay to zero, multiplied by a linear warm-up.

    At iteration t of N with W iterations of warm-up (t counts from 0, so the last iteration still
    learns at 1 / N of the peak):

        lr = peak * (1 - t / N) ** power * (1 - (1 - t / W) * (1 - warmup_ratio) for t < W)

    mmengine's `LinearLR` and `PolyLR` give the same where they overlap and end one iteration after
    W and N; here `train_cfg.max_iters` alone decides N.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup_iters: W.
        end: N; the runner fills in `train_cfg.max_iters`.
        power: Exponent of the decay.
        warmup_ratio: Factor at iteration 0.
        begin: Must be 0.
        by_epoch: Must be set to False, by which the runner fills in iterations.
        **base: `last_step` and `verbose`, as in mmengine.

    Raises:
        ValueError: For another `begin` or `by_epoch=True`.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        warmup_iters: int,
        end: int,
        power: float = 1.0,
        warmup_ratio: float = 1e-6,
        begin: int = 0,
        by_epoch: bool = True,
        **base: Any,
    ) -> None:
        if begin or by_epoch:
            raise ValueError(
                f"WarmupPolyLR counts iterations from 0, got begin={begin}, by_epoch={by_epoch}; "
                "set by_epoch=False and leave begin out"
            )
        self.warmup_iters, self.iters = warmup_iters, end
        self.power, self.warmup_ratio = power, warmup_ratio
        super().__init__(optimizer, end=end, by_epoch=False, **base)

    def factor(self, iteration: int) -> float:
        """Return the share of the peak learning rate at an iteration.

        Args:
            iteration: Number of steps taken before it.

        Returns:
            A number from 0 to 1.
        """
        value: float = (1 - iteration / self.iters) ** self.power
        if iteration < self.warmup_iters:
            value *= 1 - (1 - iteration / self.warmup_iters) * (1 - self.warmup_ratio)
        return value

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a checkpoint's iteration; the config decides the shape of the schedule.

        Args:
            state_dict: Result of `state_dict()`.
        """
        own = ("warmup_iters", "iters", "end", "power", "warmup_ratio")
        super().load_state_dict(state_dict | {name: getattr(self, name) for name in own})

    def _get_value(self) -> list[float]:
        return [base * self.factor(self.last_step) for base in self.base_values]
