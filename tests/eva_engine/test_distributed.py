"""Starting a process of a run, and its random numbers."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from eva_runs.data_order import seed_everything

RUN_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def draw(*numbers, **purpose):
    seed_everything(*numbers, **purpose)
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def test_random_numbers_belong_to_all_their_seeds():
    assert draw(1, 2, purpose="step") == draw(1, 2, purpose="step")
    seeds = [((1, 2), "step"), ((1, 2), "sample"), ((2, 1), "step"), ((1, 2, 0), "step"),
             ((1,), "step"), ((1, 2), "")]  # fmt: skip
    draws = [draw(*numbers, purpose=purpose) for numbers, purpose in seeds]
    for column in zip(*draws, strict=True):
        assert len(set(column)) == len(seeds)


def test_both_streams_stay_what_published_results_were_drawn_with():
    assert draw(3, 1, 7) == (0.5450331769464823, 0.359832138891794, 0.5246996879577637)
    of_engine = (0.9177053332630916, 0.4612872218439076, 0.21228712797164917)
    assert draw(3, 7, purpose="step") == of_engine


ALONE = """
import sys, torch
from eva_engine import distributed

def taken(*arguments, **options):
    raise torch.distributed.DistNetworkError("address already in use")

sys.modules["torch.distributed.rendezvous"].TCPStore = taken
with distributed.process_group("cpu", alone=True):
    torch.distributed.all_reduce(torch.ones(1))
"""
TWICE = """
import deepspeed, torch
from eva_engine import distributed
from eva_engine.steps import engine  # settles what DeepSpeed compiles

settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 1}}
for _ in range(2):
    with distributed.process_group("cpu", alone=True):
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.AdamW(model.parameters())
        deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
"""


@pytest.mark.parametrize("program", [ALONE, TWICE])
def test_a_process_alone_needs_no_port_and_trains_twice(run_started, program):
    """DeepSpeed's copies of the first process group end with it."""
    environment = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES}
    done = run_started("-c", program, folder=Path.cwd(), environment=environment)
    assert done.returncode == 0, done.stderr[-2000:]
