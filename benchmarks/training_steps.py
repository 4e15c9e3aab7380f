"""A step of this toolkit's engine, a step of a plain loop, and the proof that both do the same."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import Figure
from torch import Tensor, nn

from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.micro_batches import MicroBatches, StepFn, forward_and_backward
from eva_engine.steps.parameter_groups import ParameterGroup
from eva_runs.data_order import Batch, to_device

SEED, TOLERANCE = 0, 1e-4

Step = Callable[[Sequence[Any]], None]  # takes the micro-batches
Gradients = tuple[float, dict[str, Tensor]]  # with the loss


def as_loaded(parts: Sequence[Any], device: torch.device) -> MicroBatches:
    """Micro-batches as the loop has them from the loader."""
    loaded = iter([Batch(data=part, items=[], unreadable={}) for part in parts])
    return MicroBatches(loaded, count=len(parts), device=device, seeds=(SEED, 0))


def engine_step(
    model: nn.Module,
    groups: list[ParameterGroup],
    step_fn: StepFn,
    optimizer: OptimizerConfig,
    args: argparse.Namespace,
    *,
    device: torch.device,
    count: int = 1,
) -> Step:
    """The step of `eva_engine.loop`, through DeepSpeed, of `count` micro-batches."""
    run = RunConfig(
        output=Path("unused"), batch_size=args.batch // count, accumulate=count,
        precision=args.precision, zero_stage=0 if args.precision == "fp32" else 1,
    )  # fmt: skip
    engine = TrainingEngine(model, groups=groups, optimizer=optimizer, run=run)
    engine.engine.train()

    def step(parts: Sequence[Any]) -> None:
        engine.set_learning_rate(optimizer.lr)
        forward_and_backward(engine, step_fn, as_loaded(parts, device))
        assert engine.gradients_are_finite()
        engine.step()

    return step


def plain_step(
    model: nn.Module,
    groups: list[dict[str, Any]],
    backward: Callable[[Sequence[Any], Callable[[Tensor], Tensor]], object],
    settings: OptimizerConfig,
    args: argparse.Namespace,
    *,
    device: torch.device,
) -> Step:
    """The passes of `backward`, which gets a function that scales the loss; clip, AdamW."""
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps)
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "fp16")
    model.train()

    def step(parts: Sequence[Any]) -> None:
        backward([to_device(part, device) for part in parts], scaler.scale)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def gradients_of(model: nn.Module, run: Callable[[], float]) -> Gradients:
    """The loss that a function gives after its backward pass, and the gradients."""
    model.zero_grad(set_to_none=True)
    loss = run()
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def require_equal(title: str, found: Gradients, wanted: Gradients) -> Iterator[Figure]:
    """Yield the differences of loss and gradients.

    Raises:
        ValueError: If one is too large.
    """
    apart = sum((found[1][name] - value).square().sum().item() for name, value in wanted[1].items())
    total = sum(value.square().sum().item() for value in wanted[1].values())
    differences = {"loss": abs(found[0] - wanted[0]), "gradients": (apart / total) ** 0.5}
    for name, value in differences.items():
        yield f"{title}: difference of the {name} from ours", value
        if not value < TOLERANCE:
            raise ValueError(f"{title}, {name}: {value:.3g}: the steps do not do the same")
