"""What a training step takes: FLOPs and memory, counted without content.

DeepSpeed itself does not run on tensors without content: what it keeps is computed by its sizes,
around a real model. In one process ZeRO-1 holds float32 master weights, the moments of the
optimizer and a buffer for the exchange of gradients.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eva_engine.commands.training import parse
from eva_engine.config import Recipe, VitConfig
from eva_engine.steps.engine import LARGEST_BUCKET
from eva_engine.steps.micro_batches import StepFn, StepWithBeginning
from eva_engine.steps.optimizers import build_optimizer
from eva_runs.memory import MeasuredStep, add_configured_adapters, optimizer_bytes_per_weight
from eva_runs.precision import DTYPES

C = TypeVar("C", bound=VitConfig)
CLASSES = 1000  # of data that are not looked at


def reader(kind: type[Any], task: str) -> Callable[[Sequence[str]], Any]:
    """Make the function that reads a recipe of a kind with settings, without its data."""
    return lambda words: parse(kind, words, program=f"{task}/train.py").config


def build_step(
    config: Recipe, model: nn.Module, step_fn: StepFn, batch: Any, side: int
) -> MeasuredStep:
    """Build a step of one process with a recipe's model, on the same batch in all passes."""
    run, settings, lora = config.run, config.optimizer, getattr(config, "lora", None)
    add_configured_adapters(model, lora and vars(lora))
    model.to(DTYPES[run.precision])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    count, zero = sum(parameter.numel() for parameter in trained), bool(run.zero_stage)
    bucket = trained[0].new_empty(min(LARGEST_BUCKET, count) * zero)
    sums = zero and run.accumulate > 1 and run.precision != "fp32"  # of gradients, in float32
    groups = 1 if settings.layer_decay == 1 else getattr(model, "depth", 1)

    def optimizer(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        group = {"params": weights, "weight_decay": settings.weight_decay}
        return build_optimizer([group], settings, zero_stage=zero)

    def loss() -> Tensor:
        assert bucket is not None  # it lives as long as the model
        if run.accumulate > 1 and isinstance(step_fn, StepWithBeginning):
            step_fn.begin(model, [batch, batch])  # type: ignore[arg-type]  # is iterated over
        return step_fn(model, batch)[0]

    return MeasuredStep(
        model.train(),
        loss,
        optimizer_bytes_per_weight(optimizer) + 4 * (zero + sums + bool(run.ema_decay)),
        run.batch_size,
        run.accumulate,
        side,
        update=(4 + 4 * zero) * count // groups,
    )


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
