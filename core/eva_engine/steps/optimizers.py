"""Optimizers by their names: PyTorch's AdamW, timm's LAMB and LARS."""

from typing import Any

import torch

from eva_engine.config import OptimizerConfig

Groups = list[dict[str, Any]]


def build_optimizer(
    groups: Groups, config: OptimizerConfig, *, zero_stage: int
) -> torch.optim.Optimizer:
    """Build the optimizer that DeepSpeed's engine gets.

    Gradients are clipped by the engine, and by none of these.

    Args:
        groups: Groups of `eva_engine.steps.parameter_groups.optimizer_groups`.
        config: Settings of the optimizer.
        zero_stage: 1 if the optimizer's state will be shared among processes.

    Returns:
        The optimizer.

    Raises:
        ValueError: For `lars` with ZeRO-1.
    """
    if config.name == "adamw":
        return torch.optim.AdamW(
            groups, lr=config.lr, betas=config.betas, eps=config.eps, foreach=True
        )
    if config.name == "lamb":
        return _lamb(groups, config)
    if zero_stage:
        raise ValueError(
            "optimizer.name=lars needs zero_stage=0: it scales each step by the norm of an "
            "entire matrix, and ZeRO-1 cuts matrices into parts"
        )
    return _lars(groups, config)


def _lamb(groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build LAMB (You et al., https://arxiv.org/abs/1904.00962), as timm has it.

    A step of a tensor with weight decay has the length of the tensor times the learning rate, one
    of a tensor without weight decay is AdamW's. ZeRO-1 hands over the part of a parameter group
    that a process keeps as one tensor, so there a part has one length (and in the official
    training of CLIP by DeepSpeed's LAMB): the result depends on the number of processes.
    """
    from timm.optim import Lamb

    class LambOfGradients(Lamb):  # type: ignore[misc]
        """LAMB to which a step without gradients, one that is left out, does not count."""

        def step(self, closure: Any = None) -> Any:
            if any(p.grad is not None for group in self.param_groups for p in group["params"]):
                return super().step(closure)
            return None

    lamb: torch.optim.Optimizer = LambOfGradients(
        groups, lr=config.lr, betas=config.betas, eps=config.eps, max_grad_norm=None
    )
    return lamb


def _lars(groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
    from timm.optim import Lars

    for group in groups:  # timm adapts where there is weight decay; LARS does wherever a norm is
        group["always_adapt"] = all(parameter.ndim > 1 for parameter in group["params"])
    lars: torch.optim.Optimizer = Lars(groups, lr=config.lr, momentum=config.momentum)
    return lars
