"""The learning rate of the official runs: mmcv 1's `poly` policy with its linear warm-up."""

from typing import Any

from mmseg.registry import PARAM_SCHEDULERS

from eva_openmmlab.optimizer import IterationLR


@PARAM_SCHEDULERS.register_module()
class WarmupPolyLR(IterationLR):
    """Polynomial decay to zero, multiplied by a linear warm-up.

    At iteration t of N with W iterations of warm-up (t counts from 0, so the last iteration still
    learns at 1 / N of the peak):

        lr = peak * (1 - t / N) ** power * (1 - (1 - t / W) * (1 - warmup_ratio) for t < W)

    mmengine's `LinearLR` and `PolyLR` give the same where they overlap and end one iteration after
    W and N; here `train_cfg.max_iters` alone decides N.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup_iters: W.
        power: Exponent of the decay.
        warmup_ratio: Factor at iteration 0.
        **base: As for `IterationLR`.
    """

    settings = ("warmup_iters", "power", "warmup_ratio")

    def __init__(
        self,
        optimizer: Any,
        *,
        warmup_iters: int,
        power: float = 1.0,
        warmup_ratio: float = 1e-6,
        **base: Any,
    ) -> None:
        self.warmup_iters, self.power, self.warmup_ratio = warmup_iters, power, warmup_ratio
        super().__init__(optimizer, **base)

    def factor(self, iteration: int) -> float:
        """Return the share of the peak learning rate, 0 to 1, after some steps."""
        value: float = (1 - iteration / self.iters) ** self.power
        if iteration < self.warmup_iters:
            value *= 1 - (1 - iteration / self.warmup_iters) * (1 - self.warmup_ratio)
        return value
