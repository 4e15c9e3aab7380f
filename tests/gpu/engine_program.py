"""A run of the engine on any device, in the tests' process or, under torchrun, in several.

torchrun --nproc_per_node 2 tests/gpu/engine_program.py '{"output": "...", "device": "cuda"}'
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from eva_engine import distributed
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.loop import TrainingRun
from eva_engine.steps.parameter_groups import layer_decay_groups

STEPS = 24  # three epochs of eight steps
OVERFLOW = 2.0**40  # of a loss whose gradients then exceed float16


@dataclass(frozen=True)
class Config:
    run: RunConfig
    optimizer: OptimizerConfig


class AccidentError(Exception):
    """What ends a run between two checkpoints."""


class Points:
    """64 points of a plane, with noise from the global generators."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        x = torch.randn(6, generator=torch.Generator().manual_seed(index)) + 0.1 * torch.rand(6)
        return {"x": x, "y": x[:1] * 2 - x[1:2]}


class Regression(nn.Module):
    """Two layers under the names of blocks, and a head."""

    def __init__(self, width=16):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, width), nn.Linear(width, width)])
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x)


def _error(model, x, y):
    dtype = next(model.parameters()).dtype
    return (model(x.to(dtype)).float() - y).square().mean()


def make_step(*, first, overflow_at, fail_at):
    """The step function, with overflows and an accident at some steps of the complete run."""
    step = first

    def step_fn(model, batch):
        nonlocal step
        if step == fail_at:
            raise AccidentError
        error = _error(model, batch["x"], batch["y"])
        factor, step = OVERFLOW if step in overflow_at else 1.0, step + 1
        return error * factor, {"error": error.detach()}

    return step_fn


def make_run(device, *, output, processes=1, first=0, overflow_at=(), fail_at=-1, **settings):
    """A `TrainingRun` of `STEPS` steps; `first` is the step from which it continues."""

    def evaluate(model):
        x = torch.randn(32, 6, generator=torch.Generator().manual_seed(9)).to(device)
        return {"error": _error(model, x, x[:, :1] * 2 - x[:, 1:2]).item()}

    torch.manual_seed(0)
    run = {"epochs": 3, "batch_size": 8 // processes, "workers": 0, "tensorboard": False}
    model = Regression()
    optimizer = OptimizerConfig(lr=3e-2, warmup_epochs=1, layer_decay=0.8)
    return TrainingRun(
        model=model,
        groups=layer_decay_groups(model, optimizer, depth=2),
        samples=Points(),
        step_fn=make_step(first=first, overflow_at=overflow_at, fail_at=fail_at),
        config=Config(
            run=RunConfig(output=Path(output), device=device.type, **run | settings),
            optimizer=optimizer,
        ),
        device=device,
        evaluate=evaluate,
    )


def main():
    """One process of a run whose settings are the argument, as JSON."""
    settings = json.loads(sys.argv[1])
    device = distributed.start(settings.pop("device"))
    make_run(device, processes=distributed.world_size(), **settings).start()
    distributed.stop()


if __name__ == "__main__":
    main()
