"""A training step of a recipe for `eva plan`.

DeepSpeed itself does not run on tensors without content: what it keeps is computed by its sizes,
around a real model. In one process ZeRO-1 holds float32 master weights, the moments of the
optimizer and a buffer for the exchange of gradients.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eva_engine.commands.training import parse
from eva_engine.config import Recipe
from eva_engine.steps.engine import LARGEST_BUCKET
from eva_engine.steps.micro_batches import StepFn, StepWithBeginning
from eva_engine.steps.optimizers import build_optimizer
from eva_runs.memory import MeasuredStep, add_configured_adapters, optimizer_bytes_per_weight
from eva_runs.precision import DTYPES

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
