"""A run of the engine on any device, in the tests' process or, under torchrun, in several.

torchrun --nproc_per_node 2 tests/gpu/engine_program.py '{"output": "...", "device": "cuda"}'
"""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from deepspeed.accelerator import get_accelerator
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


class Step:
    """The step function, with overflows and an accident at some steps of the complete run.

    Attributes:
        run: The run, which knows where it continues.
        began: Seconds at which each step began, by a clock, behind all work of the steps before.
    """

    def __init__(self, *, overflow_at, fail_at, kill_at, watch):
        self.overflow_at, self.fail_at, self.kill_at = overflow_at, fail_at, kill_at
        self.watch, self.began = watch, {}

    def __call__(self, model, batch):
        step = self.run._start + len(self.began)
        if batch["x"].is_cuda:
            torch.cuda.synchronize()
        self.began[step] = time.perf_counter()
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self.fail_at:
            raise AccidentError
        if self.watch:
            self.watch(step, model)
        error = _error(model, batch["x"], batch["y"])
        factor = OVERFLOW if step in self.overflow_at else 1.0
        return error * factor, {"error": error.detach()}


def make_run(
    device, *, output, processes=1, width=16, overflow_at=(), fail_at=-1, kill_at=-1, watch=None,
    **settings,
):  # fmt: skip
    """A `TrainingRun` of `STEPS` steps, or of what is left of them."""

    def evaluate(model, stop):
        x = torch.randn(32, 6, generator=torch.Generator().manual_seed(9)).to(device)
        return {"error": _error(model, x, x[:, :1] * 2 - x[:, 1:2]).item()}

    torch.manual_seed(0)
    run = {"epochs": 3, "batch_size": 8 // processes, "workers": 0, "tensorboard": False}
    model = Regression(width)
    optimizer = OptimizerConfig(lr=3e-2, warmup_epochs=1, layer_decay=0.8)
    step = Step(overflow_at=overflow_at, fail_at=fail_at, kill_at=kill_at, watch=watch)
    step.run = TrainingRun(
        model=model,
        groups=layer_decay_groups(model, optimizer, depth=2),
        samples=Points(),
        step_fn=step,
        config=Config(
            run=RunConfig(output=Path(output), device=device.type, **run | settings),
            optimizer=optimizer,
        ),
        device=device,
        evaluate=evaluate,
    )
    return step.run


def main():
    """One process of a run whose settings are the argument, as JSON."""
    settings = json.loads(sys.argv[1])
    device = distributed.start(settings.pop("device"))
    if device.type == "cpu":  # which computes float16, though DeepSpeed asks for its instructions
        get_accelerator().is_fp16_supported = lambda: True
    make_run(device, processes=distributed.world_size(), **settings).start()
    distributed.stop()


if __name__ == "__main__":
    main()
