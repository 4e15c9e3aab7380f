"""What is trained, at which rate: parameter groups of both towers, and parts that are frozen."""

import math
from dataclasses import replace

from torch import nn

from eva_backbone.layer_decay import freeze_layers
from eva_contrastive.config import ContrastiveConfig, TowerConfig
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.model.towers import TextTower, VisionTower
from eva_engine.steps.parameter_groups import ParameterGroup, layer_decay_groups

Towers = list[tuple[str, TowerConfig, VisionTower | TextTower]]


def freeze(config: ContrastiveConfig, model: EvaClip) -> None:
    """Stop the gradients of what the recipe does not train; call it before `parameter_groups`.

    A tower that is locked (LiT, Zhai et al., arXiv:2111.07991) is not trained at all; of one with
    frozen blocks neither these nor the embeddings. Factor and bias of the logits are always.

    Args:
        config: The recipe.
        model: Its model.
    """
    for _, settings, tower in _towers(config, model):
        if settings.locked:
            tower.requires_grad_(False)
        elif settings.frozen_blocks:
            freeze_layers(tower, depth=tower.depth, below=settings.frozen_blocks + 1)
    for parameter in _of_logits(model):
        parameter.requires_grad_(True)


def parameter_groups(config: ContrastiveConfig, model: EvaClip) -> list[ParameterGroup]:
    """Group the trained parameters by tower, layer, and whether weight decay applies.

    The layers of a tower are those of `eva_backbone.layer_decay`. Vectors, biases, position
    embeddings and the class token have no weight decay.

    Args:
        config: The recipe.
        model: Its model, with everything frozen that is to be.

    Returns:
        The groups of the vision tower, of the text tower, and of factor and bias of the logits.

    Raises:
        ValueError: If the learning rate of the logit scale is 0, of which the rates of the towers
            are multiples.
    """
    lr = config.optimizer.lr
    if not lr:
        raise ValueError(
            "optimizer.lr=0 leaves nothing to schedule: the rates of the towers are multiples of "
            "it; give a small one, such as 1e-9, to keep the logit scale"
        )
    of_logits = _of_logits(model)
    apart = {id(parameter) for parameter in of_logits}
    groups = []
    for name, settings, tower in _towers(config, model):
        for group in layer_decay_groups(
            tower,
            depth=tower.depth,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
            lr_scale=settings.lr / lr,
        ):
            params = [parameter for parameter in group.params if id(parameter) not in apart]
            if params:
                groups.append(replace(group, name=f"{name}.{group.name}", params=params))
    return [*groups, ParameterGroup(name="logits", params=of_logits)]


def limits(config: ContrastiveConfig) -> dict[str, tuple[float, float]]:
    """Return the limits of the logit scale, for `eva_engine.loop.TrainingRun`."""
    return {"text.logit_scale": (0.0, math.log(config.max_logit_scale))}


def _towers(config: ContrastiveConfig, model: EvaClip) -> Towers:
    return [("visual", config.vision, model.visual), ("text", config.text, model.text)]


def _of_logits(model: EvaClip) -> list[nn.Parameter]:
    both = (model.text.logit_scale, model.text.logit_bias)
    return [parameter for parameter in both if parameter is not None]
