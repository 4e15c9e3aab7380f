"""Micro-batches of a step: when they are loaded, their random numbers, a step with a beginning."""

import pytest
import torch

from eva_engine.steps.micro_batches import MicroBatches
from eva_runs.data_order import Batch


@pytest.fixture
def make():
    """Function: micro-batches of a step, and the numbers of those that were loaded."""

    def build(count=3, seeds=(0, 5)):
        loaded = []

        def load():
            for number in range(count + 1):
                torch.manual_seed(99)  # a loader without processes seeds here, too
                loaded.append(number)
                yield Batch(data=torch.tensor(number), items=[], unreadable={})

        return MicroBatches(load(), count=count, device=torch.device("cpu"), seeds=seeds), loaded

    return build


def draws(micro_batches):
    return [(data.item(), torch.rand(()).item()) for data in micro_batches]


def test_each_pass_has_the_same_random_numbers(make):
    micro_batches, loaded = make()
    first = draws(micro_batches)
    assert [number for number, _ in first] == [0, 1, 2]
    assert len({value for _, value in first}) == 3
    torch.manual_seed(1)
    assert draws(micro_batches) == first
    assert loaded == [0, 1, 2]
    assert len(micro_batches) == 3
    assert [batch.data.item() for batch in micro_batches.taken] == loaded
