"""Model FLOPs, and the peak of a GPU, for the log's share of the peak."""

import logging
import math
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eva_engine.config import VitConfig

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=VitConfig)

# Peak of dense half-precision matrix products in FLOP/s (manufacturers' data sheets), by the name
# that CUDA gives, without the maker and the memory. Variants of one number differ.
_PEAK_FLOPS = {
    "H200": 989e12,
    "H200 NVL": 835e12,
    "H100 HBM3": 989e12,  # SXM
    "H100 PCIE": 756e12,
    "H100 NVL": 835e12,
    "A100 SXM4": 312e12,
    "A100 SXM": 312e12,
    "A100 PCIE": 312e12,
    "V100 SXM2": 125e12,
    "V100 SXM3": 125e12,
    "V100 PCIE": 112e12,
    "V100S PCIE": 130e12,
    "L40S": 362e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
_NOT_OF_THE_NAME = re.compile(r"NVIDIA|TESLA|GEFORCE|\d+GB")


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


def peak_flops(device: torch.device) -> float:
    """Look up the peak of dense half-precision matrix products in FLOP/s; NaN if not known."""
    if device.type != "cuda":
        return math.nan
    name = torch.cuda.get_device_name(device)
    words = re.split(r"[\s-]+", name.upper())
    model_name = " ".join(word for word in words if not _NOT_OF_THE_NAME.fullmatch(word))
    if model_name not in _PEAK_FLOPS:
        logger.info("the peak of %s is not known: the log has no share of it", name)
    return _PEAK_FLOPS.get(model_name, math.nan)
