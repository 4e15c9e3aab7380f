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


def test_without_a_fault(same_training, faulty):
    """Numbers without dimensions may come from the CPU, as on a GPU."""
    same_training(faulty(None))


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


def test_nothing_is_left_behind(second, devices):
    before = torch.autocast
    with pytest.raises(devices.TwoDevicesError), second() as device:
        torch.zeros(2, device=device) + torch.zeros(2)
    assert torch.autocast is before
    assert not hasattr(torch, "lazy")
    with pytest.raises(NotImplementedError):
        torch.zeros(2, device="lazy")
