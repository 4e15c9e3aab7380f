"""LAMB in its two common forms, which take other steps at the same learning rate."""

from typing import Any

import torch
import torch.distributed as dist
from timm.optim import Lamb
from torch import Tensor

from eva_engine import distributed


class DeepSpeedLamb(torch.optim.Optimizer):
    """LAMB as DeepSpeed's FusedLamb computes it, with which the official EVA-CLIPs were trained.

    With the moving averages m of gradients and v of their squares, both uncorrected, at step t:

        u = m / (sqrt(v) + eps) + weight_decay * w
        ratio = clamp(|w| / |u|, 0.01, 10), 1 where a norm is 0
        w -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * ratio * u

    LAMB (You et al., arXiv:1904.00962) and timm's correct m and v first, so that the ratio takes
    the correction away again: with the official decay rates their first step is 3.2 times as long.
    Source: DeepSpeed 0.6.5, `csrc/lamb/fused_lamb_cuda_kernel.cu`.

    Args:
        params: Tensors or parameter groups, which may have values of all that follows.
        lr: Learning rate.
        betas: Decay rates of m and v.
        eps: Added to the root of v.
        weight_decay: Share of the weights in u.
        sharded: Tensors are the parts that this process has of tensors that all processes share, as
            with ZeRO; both norms are those of the whole, whatever the number of processes.
    """

    lower, upper = 0.01, 10.0  # bounds of the ratio, the defaults of DeepSpeed

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        sharded: bool = False,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self.sharded = sharded

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; without gradients, in a step that is left out, it does not count."""
        loss = closure() if closure else None
        for group in self.param_groups:
            trained = [weight for weight in group["params"] if weight.grad is not None]
            if trained:
                group["step"] = int(group.get("step", 0)) + 1
            for weight in trained:
                self._update(weight, group)
        return loss

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        m, v = state["exp_avg"], state["exp_avg_sq"]
        beta1, beta2 = group["betas"]
        m.lerp_(weight.grad, 1 - beta1)
        v.mul_(beta2).addcmul_(weight.grad, weight.grad, value=1 - beta2)
        update = v.sqrt().add_(group["eps"])
        torch.div(m, update, out=update).add_(weight, alpha=group["weight_decay"])
        size, length = self._norms(weight, update)
        ratio = (size / length).clamp_(self.lower, self.upper)
        ratio = torch.where((size == 0) | (length == 0), torch.ones_like(ratio), ratio)
        corrections = 1 - beta1 ** group["step"], 1 - beta2 ** group["step"]
        step_size = group["lr"] * corrections[1] ** 0.5 / corrections[0]
        weight.addcmul_(update, ratio, value=-step_size)

    def _norms(self, *tensors: Tensor) -> Tensor:
        norms = torch.stack([tensor.norm() for tensor in tensors])
        if self.sharded and distributed.world_size() > 1:
            dist.all_reduce(norms.square_())
            norms.sqrt_()
        return norms


class TimmLamb(Lamb):  # type: ignore[misc]
    """timm's LAMB, to which a step without gradients, one that is left out, does not count.

    A step of a tensor with weight decay has the length of the tensor times the learning rate.
    ZeRO-1 hands over the part of a parameter group that a process keeps as one tensor, which has
    one length: the result depends on the processes.
    """

    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        if any(p.grad is not None for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        return None
