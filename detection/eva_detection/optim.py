"""AdamW with gradient clipping inside, so that it clips under every trainer.

A `GradScaler` unscales the gradients before it calls `step`, hence the clipping is right under
fp16 too, in our trainer as in detectron2's own.
"""

from typing import Any

import torch
from torch import Tensor


class ClippedAdamW(torch.optim.AdamW):
    """AdamW that clips the global gradient norm before each step.

    Args:
        params: Parameters or groups.
        max_grad_norm: Largest L2 norm over all parameters.
        **adamw: Arguments of `torch.optim.AdamW`.

    Attributes:
        last_grad_norm: Norm before clipping at the latest step, a tensor; None before it.

    Raises:
        ValueError: If the norm is not positive.
        RuntimeError: At a step, before it changes a weight, if the gradients are not finite.
    """

    last_grad_norm: Tensor | None = None

    def __init__(self, params: Any, *, max_grad_norm: float, **adamw: Any) -> None:
        if max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be positive, got {max_grad_norm}")
        super().__init__(params, **adamw)
        self.max_grad_norm = max_grad_norm
        self.register_step_pre_hook(_clip)


def _clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    assert isinstance(optimizer, ClippedAdamW)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(
        parameters, optimizer.max_grad_norm, error_if_nonfinite=True
    )
    optimizer.last_grad_norm = norm
