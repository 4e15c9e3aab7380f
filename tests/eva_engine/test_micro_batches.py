"""Micro-batches of a step: when they are loaded, their random numbers, a step with a beginning."""

import pytest
import torch

from eva_engine.steps.micro_batches import MicroBatches, StepWithBeginning
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


def test_other_steps_have_other_random_numbers(make):
    first, second = (draws(make(seeds=seeds)[0]) for seeds in ((0, 5), (0, 6)))
    assert {value for _, value in first}.isdisjoint(value for _, value in second)


class WithBeginning:
    """A step function that looks at all micro-batches before, and draws random numbers of them."""

    def __init__(self, step_fn, seen):
        self.step_fn, self.seen, self.calls = step_fn, seen, 0

    def begin(self, model, micro_batches):
        assert model.training
        with torch.no_grad():
            self.outputs = [self.step_fn(model, batch)[0] for batch in micro_batches]
        self.seen.append(len(self.outputs))

    def __call__(self, model, batch):
        loss, metrics = self.step_fn(model, batch)
        assert loss.equal(self.outputs.pop(0))  # dropout is the same in both passes
        return loss, metrics


def test_a_beginning_changes_nothing(start, program, make_config, metrics, tmp_path):
    """The loop calls it once a step; loss and order of the data are those of a run without it."""
    settings = {"accumulate": 4, "batch_size": 2, "epochs": 2}
    start("plain", **settings)
    seen = []
    step_fn = WithBeginning(program.make_step(make_config()), seen)
    assert isinstance(step_fn, StepWithBeginning)
    assert not isinstance(program.make_step(make_config()), StepWithBeginning)
    start("other", changes={"step_fn": step_fn}, workers=1, **settings)
    assert metrics(tmp_path / "other") == metrics(tmp_path / "plain")
    assert seen == [4] * 16
