"""AdamW for yacs configs, and with gradient clipping inside, so that it clips under every trainer.

A `GradScaler` unscales the gradients before it calls `step`, hence the clipping is right under
fp16 too, in our trainer as in detectron2's own.
"""

from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params
from torch import Tensor, nn

from eva_backbone import get_vit_lr_decay_rate


def build_adamw(
    cfg: CfgNode, model: nn.Module, *, lr_decay_rate: float = 0.9
) -> torch.optim.Optimizer:
    """Build the AdamW of the recipes for a trainer of yacs configs, which knows SGD alone.

    It reads `SOLVER.BASE_LR` and `SOLVER.WEIGHT_DECAY`; every trainable parameter of the detector
    decays, as in the paper. `lr_decay_rate` is the factor from one layer to the one below it.
    """
    backbone: Any = model.backbone
    decay = partial(
        get_vit_lr_decay_rate, lr_decay_rate=lr_decay_rate, num_layers=backbone.net.depth
    )
    lr, weight_decay = cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY
    groups = get_default_optimizer_params(model, base_lr=lr, lr_factor_func=decay)
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)


class ClippedAdamW(torch.optim.AdamW):
    """AdamW that clips the global gradient norm before each step.

    The largest L2 norm over all parameters is `max_grad_norm`; other arguments are AdamW's, but for
    `fused=True`: a fused step gets scaled gradients from a `GradScaler`, which cannot be clipped. A
    step raises a RuntimeError before it changes a weight, if the gradients are not finite.
    """

    last_grad_norm: Tensor | None = None  # before clipping at the latest step

    def __init__(self, params: Any, *, max_grad_norm: float, **adamw: Any) -> None:
        if max_grad_norm <= 0 or adamw.get("fused"):
            raise ValueError(f"{max_grad_norm=} must be positive, and fused=True left out")
        super().__init__(params, **adamw)
        self.defaults["max_grad_norm"] = max_grad_norm  # survives copying and pickling

    def step(self, closure: Any = None) -> Any:
        """Clip, then step."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        most = self.defaults["max_grad_norm"]
        clip = torch.nn.utils.clip_grad_norm_
        self.last_grad_norm = clip(parameters, most, error_if_nonfinite=True)
        return super().step(closure)
