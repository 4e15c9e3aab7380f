"""A run of the engine on a small regression, in the tests' own process or in others."""

import os
import signal
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.data import Subset

from eva_engine import distributed
from eva_engine.checkpoints import run_checkpoint
from eva_engine.commands import training as command_line
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.data.loading import evaluation_loader
from eva_engine.loop import TrainingRun
from eva_engine.report import Presentation
from eva_engine.steps.parameter_groups import layer_decay_groups


class Samples:
    """64 points of a plane, with noise from the global generators; some may be unreadable."""

    def __init__(self, bad=(), poison=(), bug=-1):
        self.bad, self.poison, self.bug = bad, poison, bug

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if index in self.bad:
            raise OSError("cannot identify image file")
        if index == self.bug:
            raise KeyError("a mistake in a transform")
        x = torch.randn(6, generator=torch.Generator().manual_seed(index))
        x = x + 0.1 * torch.rand(6)  # the augmentation
        y = x[:1] * 2 - x[1:2]
        y = torch.full_like(y, torch.nan) if index in self.poison else y
        return {"x": x, "y": y, "key": float(index * 2654435761 % 2**32)}

    def sample_id(self, index):
        return f"file-{index}.jpg"


class Model(nn.Module):
    def __init__(self, dropout, width=16):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, width), nn.Linear(width, width)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        for block in self.blocks:
            x = self.dropout(torch.tanh(block(x)))
        return self.head(x)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A test's run.

    Attributes:
        run: How it is carried out.
        optimizer: Its optimizer.
        bad: Samples that cannot be read.
        poison: Samples whose target is not a number.
        bug: A sample whose code has a bug.
        evaluation_workers: Processes that load data for the evaluation; -1 loads none.
        term_in_evaluation: Evaluation with a SIGTERM to the process group.
        dropout: Rate of dropout.
        on_rank: The process that has the following accidents; -1 for all.
        kill_at: Forward pass of a SIGKILL to this process.
        kill_in_save: Kill in the save after this many steps.
        fail_at: Forward pass of an error.
    """

    run: RunConfig
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=3e-2, warmup_epochs=1, layer_decay=0.8)
    )
    bad: tuple[int, ...] = ()
    poison: tuple[int, ...] = ()
    bug: int = -1
    evaluation_workers: int = -1
    term_in_evaluation: int = -1
    dropout: float = 0.1
    on_rank: int = -1
    kill_at: int = -1
    kill_in_save: int = -1
    fail_at: int = -1


def make_step(config):
    """The step function, with the accidents of the config."""
    calls = 0
    here = config.on_rank in (-1, distributed.rank())

    def step_fn(model, batch):
        nonlocal calls
        if here and calls == config.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if here and calls == config.fail_at:
            raise RuntimeError("an accident in the step function")
        calls += 1
        dtype = next(model.parameters()).dtype
        error = (model(batch["x"].to(dtype)).float() - batch["y"]).square().mean()
        # the means of a step tell which samples it had, and with what augmentation
        means = {"key": batch["key"].mean(), "input": batch["x"].double().mean()}
        return error, {"error_root": error.detach().sqrt(), **means}

    return step_fn


def evaluate(model, stop):
    """Mean square error on other points, and a random number for the tests of its seed."""
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(9))
    dtype = next(model.parameters()).dtype
    error = (model(x.to(dtype)).float() - (x[:, :1] * 2 - x[:, 1:2])).square().mean()
    return {"error": error.item(), "random": torch.rand(()).item()}


def make_evaluate(config):
    """The evaluation, with the accidents of the config."""
    calls = 0

    def evaluate_loaded(model, stop):
        nonlocal calls
        calls += 1
        own = Subset(Samples(), distributed.rank_indices(64))
        error = 0.0
        workers = config.evaluation_workers
        with evaluation_loader(own, workers=workers, batch_size=4, stop=stop) as batches:
            for number, batch in enumerate(batches):
                if calls == config.term_in_evaluation and number == 1:
                    os.killpg(os.getpgrp(), signal.SIGTERM)
                error += (model(batch["x"]) - batch["y"]).square().sum().item()
        (error,) = distributed.sum_over_ranks([error], torch.device("cpu"))
        return {"error": error / 64}

    return evaluate if config.evaluation_workers < 0 else evaluate_loaded


def make_groups(model, optimizer):
    return layer_decay_groups(model, optimizer, depth=2)


def make_run(config, device, **changes):
    """A `TrainingRun` that is ready to start."""
    torch.manual_seed(0)
    model = changes.pop("model", None) or Model(config.dropout)
    arguments = {
        "model": model,
        "groups": make_groups(model, config.optimizer),
        "samples": Samples(config.bad, config.poison, config.bug),
        "step_fn": make_step(config),
        "config": config,
        "device": device,
        "evaluate": make_evaluate(config),
        "flops_per_sample": 1e6,
    }
    return TrainingRun(**arguments | changes)


def train(config, device, recipe):
    if config.kill_in_save >= 0:
        save_weights = run_checkpoint.save_weights

        def killing(state, file, *rest):
            save_weights(state, file, *rest)
            if f"{config.kill_in_save:08d}" in str(file):
                os.kill(os.getpid(), signal.SIGKILL)

        run_checkpoint.save_weights = killing
    make_run(config, device, presentation=Presentation(task="Training", recipe=recipe)).start()


main = command_line.training_command(Config, train, program="program.py")
