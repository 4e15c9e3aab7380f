"""Learning rates: per parameter group, and per step of the schedule.

A project hands the groups to `eva_engine.loop.TrainingRun`. A model around one ViT takes those of
`layer_decay_groups`; a model of several towers concatenates the groups of its towers.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from eva_backbone.layer_decay import param_groups_layer_decay
from eva_engine.config import OptimizerConfig, require


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters with one weight decay, and one factor of the learning rate; all are trained."""

    name: str
    params: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float = 0.0


class Decays(Protocol):
    """Settings of a ViT or text tower, such as those of an `OptimizerConfig`."""

    @property
    def weight_decay(self) -> float: ...  # noqa: D102

    @property
    def layer_decay(self) -> float: ...  # noqa: D102


def layer_decay_groups(
    model: nn.Module, settings: Decays, *, depth: int, lr_scale: float = 1.0
) -> list[ParameterGroup]:
    """Group the trained parameters of a model around one ViT or text tower, from input to output.

    Matrices have the weight decay; vectors, biases, `pos_embed`, `cls_token` and
    `positional_embedding` have none. `lr_scale` is the learning-rate factor of the last layer.
    """
    groups = param_groups_layer_decay(
        model,
        depth=depth,
        lr=lr_scale,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
    )
    return [ParameterGroup(**group | {"lr_scale": group.pop("lr")}) for group in groups]


def check_that_settings_are_used(
    groups: Sequence[ParameterGroup], optimizer: OptimizerConfig
) -> None:
    """Refuse a weight decay or layer decay that was set and that the groups ignore."""
    for name, used in (
        ("weight_decay", {OptimizerConfig.weight_decay, *(group.weight_decay for group in groups)}),
        ("layer_decay", None if any(group.lr_scale != 1.0 for group in groups) else {1.0}),
    ):
        value = getattr(optimizer, name)
        require(
            used is None or value in used,
            f"optimizer.{name}={value} has no effect on the parameter groups of this model",
        )


def optimizer_groups(
    model: nn.Module, groups: Sequence[ParameterGroup], *, lr: float
) -> list[dict[str, Any]]:
    """Write groups, which hold each trained parameter once, as PyTorch takes them.

    Checkpoints hold the optimizer's state in the order of the groups.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    held = Counter(parameter for group in groups for parameter in group.params)
    trained = Counter(parameter for parameter in names if parameter.requires_grad)
    wrong = (held - trained) + (trained - held)
    assert not wrong, [names.get(parameter, tuple(parameter.shape)) for parameter in wrong]
    return [
        vars(group) | {"params": list(group.params), "lr": lr * group.lr_scale} for group in groups
    ]


def warmup_cosine(
    step: int, *, peak: float, end: float, warmup_steps: int, total_steps: int
) -> float:
    """Compute the learning rate of a step from 0 (the official schedule, reproduced by its logs).

    The warm-up is `linspace(0, peak, warmup_steps)`, both ends included; the cosine starts at
    `peak` and never quite reaches `end`.

    Raises:
        ValueError: If the warm-up is longer than the run.
    """
    require(
        warmup_steps <= total_steps,
        f"the warm-up of {warmup_steps} steps exceeds the run of {total_steps}",
    )
    if step < warmup_steps:
        return peak * step / max(1, warmup_steps - 1)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * progress))
