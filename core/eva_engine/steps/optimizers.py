"""Optimizers by name; LAMB in its two common forms, which take other steps at the same rate."""

from typing import Any

import torch
import torch.distributed as dist
from timm.optim import Lamb, Lars
from torch import Tensor

from eva_engine import distributed
from eva_engine.config import OptimizerConfig


def build_optimizer(
    groups: list[dict[str, Any]], config: OptimizerConfig, *, zero_stage: int
) -> torch.optim.Optimizer:
    """Build the optimizer that DeepSpeed's engine gets; the engine clips the gradients.

    LARS (https://arxiv.org/abs/1708.03888) is timm's.

    Raises:
        ValueError: For `lars` with ZeRO-1.
    """
    settings: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    optimizer: torch.optim.Optimizer
    if config.name == "adamw":
        return torch.optim.AdamW(groups, **settings, foreach=True)
    if config.name == "deepspeed_lamb":
        return DeepSpeedLamb(groups, **settings, sharded=zero_stage > 0)
    if config.name == "lamb":
        optimizer = TimmLamb(groups, **settings, max_grad_norm=None)
        return optimizer
    if zero_stage:
        raise ValueError(
            "optimizer.name=lars needs zero_stage=0: it scales each step by the norm of an "
            "entire matrix, and ZeRO-1 cuts matrices into parts"
        )
    for group in groups:  # timm adapts where there is weight decay; LARS does wherever a norm is
        group["always_adapt"] = all(parameter.ndim > 1 for parameter in group["params"])
    optimizer = Lars(groups, lr=config.lr, momentum=config.momentum)
    return optimizer


class DeepSpeedLamb(torch.optim.Optimizer):
    """LAMB as DeepSpeed's FusedLamb computes it, with which the official EVA-CLIPs were trained.

    With uncorrected moving averages m of gradients and v of their squares, at step t:

        u = m / (sqrt(v) + eps) + weight_decay * w
        ratio = clamp(|w| / |u|, 0.01, 10), 1 where a norm is 0
        w -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * ratio * u

    Source: DeepSpeed 0.6.5, `csrc/lamb/fused_lamb_cuda_kernel.cu`. The paper (arXiv:1904.00962) and
    timm correct m and v first, which the ratio undoes: the first step is 3.2 times as long.

    Args:
        groups: Parameter groups, each with its `weight_decay`.
        sharded: Tensors are the parts that this process has of tensors that all processes share, as
            with ZeRO; both norms are those of the whole, whatever the number of processes.
        **defaults: `lr`, `betas` and `eps`, which groups may have of their own.
    """

    def __init__(self, groups: list[dict[str, Any]], *, sharded: bool, **defaults: Any) -> None:
        super().__init__(groups, defaults)
        self.sharded = sharded

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; without gradients, in a step that is left out, it does not count."""
        for group in self.param_groups:
            trained = [weight for weight in group["params"] if weight.grad is not None]
            group["step"] = int(group.get("step", 0)) + bool(trained)
            for weight in trained:
                self._update(weight, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if not state:
            state |= {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        m = state["exp_avg"].lerp_(weight.grad, 1 - beta1)
        v = state["exp_avg_sq"].mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
        update = v.sqrt().add_(group["eps"])
        torch.div(m, update, out=update).add_(weight, alpha=group["weight_decay"])
        norms = torch.stack([weight.norm(), update.norm()])
        if self.sharded and distributed.world_size() > 1:
            dist.all_reduce(norms.square_())
            norms.sqrt_()
        ratio = torch.where(norms.all(), (norms[0] / norms[1]).clamp(0.01, 10), 1.0)
        corrections = 1 - beta1 ** group["step"], 1 - beta2 ** group["step"]
        weight.addcmul_(update, ratio, value=-group["lr"] * corrections[1] ** 0.5 / corrections[0])


class TimmLamb(Lamb):  # type: ignore[misc]
    """timm's LAMB, to which a step without gradients, one that is left out, does not count."""

    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        if any(p.grad is not None for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        return None
