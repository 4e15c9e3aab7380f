"""FLOPs of a model, counted on tensors without content."""

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eva_engine.config import VitConfig

C = TypeVar("C", bound=VitConfig)


def training_flops(
    build: Callable[[C], nn.Module],
    config: C,
    *,
    inputs: Sequence[Tensor] | None = None,
    backward: bool = True,
) -> float:
    """Count the model FLOPs of one sample in training, by default an image of the config's size.

    The backward pass costs twice the forward; that of frozen modules, below what is trained,
    nothing, and a linear probe's has none. Blocks that stochastic depth leaves out count as carried
    out, and what is computed a second time, for checkpoints of activations or cached features,
    counts once; patches that a training step leaves out do not count.
    """
    untrained = partial(build, replace(config, init_checkpoint="", drop_path_rate=0.0))
    if inputs is None:
        inputs = [image_input(config.image_size)]
    total, frozen = _count(untrained, inputs, training=True)
    return total + 2 * (total - frozen) if backward else total


def forward_flops(build: Callable[[], nn.Module], *inputs: Tensor) -> float:
    """Count twice the multiplications of all matrix products in one sample's forward pass."""
    return _count(build, inputs, training=False)[0]


def image_input(side: int, *, frames: int | None = None, channels: int = 3) -> Tensor:
    """Make an image (1, 3, side, side) or a clip (1, frames, 3, side, side) to count FLOPs with."""
    shape = () if frames is None else (frames,)
    return torch.empty(1, *shape, channels, side, side, device="meta")


def _count(
    build: Callable[[], nn.Module], inputs: Sequence[Tensor], *, training: bool
) -> tuple[float, float]:
    """Count the FLOPs of a forward pass, and those of them in frozen modules."""
    samples = 2 if training else 1  # batch norms cannot be trained with one
    with torch.device("meta"):
        model = build().train(training)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*(part.to("meta").repeat_interleave(samples, dim=0) for part in inputs))
    root = type(model).__name__
    counts = {k: sum(v.values()) for k, v in counter.get_flop_counts().items()}
    frozen = sum(counts[f"{root}.{name}"] for name in _frozen_modules(model, root, counts))
    return counter.get_total_flops() / samples, frozen / samples


def _frozen_modules(model: nn.Module, root: str, called: Container[str]) -> list[str]:
    """Name the outermost modules below the model that have parameters and train none.

    A list of modules is not called itself: its members stand for it.
    """
    modules: list[str] = []
    for name, module in model.named_modules():
        trained = {parameter.requires_grad for parameter in module.parameters()}
        inside = any(name.startswith(f"{outer}.") for outer in modules)
        if trained == {False} and not inside and f"{root}.{name}" in called:
            modules.append(name)
    return modules
