"""The second device itself: faults that it sees, what it allows, and that it leaves nothing."""

import pytest
import torch
from torch import nn


class Faulty(nn.Module):
    """Adds a position that it makes on the CPU, in the forward or in the backward pass."""

    def __init__(self, fault):
        super().__init__()
        self.layer, self.fault = nn.Linear(4, 4), fault

    def forward(self, x):
        x = self.layer(x)
        if self.fault == "forward":
            return x + torch.arange(4.0)
        if self.fault == "index":
            return x[:, torch.tensor([0, 2])]
        if self.fault == "backward":
            return _BackwardOnCpu.apply(x)
        return x * torch.tensor(2.0) + torch.arange(4.0, device=x.device)


class _BackwardOnCpu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.ones(4)


@pytest.fixture
def faulty(steps):
    """Function: a step of a module with a fault."""
    return lambda fault: steps.Step(
        Faulty(fault), lambda: torch.ones(3, 4), lambda model, x: model(x).square().sum(), True
    )


@pytest.mark.parametrize("fault", ["forward", "index", "backward"])
def test_a_planted_fault_is_refused(same_training, devices, faulty, fault):
    with pytest.raises(devices.TwoDevicesError, match=r"on lazy:0.* on cpu"):
        same_training(faulty(fault))


@pytest.mark.parametrize("fault", ["forward", "index", "backward"])
def test_a_planted_fault_is_refused_on_meta(runs_on_meta, devices, faulty, fault):
    with pytest.raises(devices.TwoDevicesError, match=r"on meta.* on cpu"):
        runs_on_meta(faulty(fault))


def test_without_a_fault(same_training, runs_on_meta, faulty):
    """Numbers without dimensions may come from the CPU, as on a GPU."""
    same_training(faulty(None))
    runs_on_meta(faulty(None))


def test_indexes_of_frameworks_are_allowed_on_request(same_training, faulty):
    same_training(faulty("index"), indexes_on_cpu=True)


WAITS = {
    "nonzero": lambda x: (x > 0).nonzero(),
    "indexing by a mask": lambda x: x[x > 0],
    "writing by a mask": lambda x: x.__setitem__(x > 0, x[:1]),
    "item": lambda x: x.sum().item(),
    "condition": lambda x: bool((x > 0).any()),
    "copy": lambda x: x.cpu(),
    "copy into": lambda x: torch.zeros(3).copy_(x),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_the_cpu_waits_for_is_refused_on_request(second, devices, name):
    with second() as device:
        WAITS[name](torch.ones(3).to(device))
    with second(waits=False) as device:
        x = torch.ones(3).to(device) + 1
        x.index_select(0, torch.tensor([0, 2]).to(device))
        with pytest.raises(devices.WaitError, match="the CPU waits for aten"):
            WAITS[name](x)


def test_tensors_are_of_the_device(second):
    with second() as device:
        made = torch.zeros(2, 3, device=device)
        for tensor in (
            made,
            made.new_tensor([1, 2]),
            torch.tensor([1.0, 2.0], device=device),
            torch.as_tensor([1, 2], device=device),
            torch.rand_like(made),
            made[:, [0, 2]],
            torch.ones(2).to(made),
        ):
            assert tensor.device == device
        assert made.cpu().device.type == "cpu"
        assert made.add_(1).tolist() == [[1.0] * 3] * 2
        with pytest.raises(RuntimeError, match="numpy"):
            made.numpy()


def test_writing_through_a_view(second):
    with second() as device:
        values = torch.zeros(3, device=device)
        values[1:].copy_(torch.tensor([1.0, 2.0]))
        values[[0]] = 5.0
        assert values.cpu().tolist() == [5.0, 1.0, 2.0]


def test_nothing_is_left_behind(second, devices):
    before = torch.autocast
    with pytest.raises(devices.TwoDevicesError), second() as device:
        torch.zeros(2, device=device) + torch.zeros(2)
    assert torch.autocast is before
    assert not hasattr(torch, "lazy")
    with pytest.raises(NotImplementedError):
        torch.zeros(2, device="lazy")
