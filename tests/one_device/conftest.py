"""A second device where there is none, and what is compared on both."""

import copy
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def devices(load_module):
    """The module `second_device.py`."""
    return load_module(HERE / "second_device.py")


@pytest.fixture
def second(devices):
    """Function: context that has the second device and gives it."""
    return devices.second_device


def _gradients(model):
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def same_training(second):
    """Function: a step on the CPU and on the second device; loss and gradients are the same."""

    def compare(step, **options):
        other = copy.deepcopy(step.model)
        expected = step.run(step.model, torch.device("cpu"))
        expected.backward()
        wanted = _gradients(step.model)
        largest = max(gradient.abs().max() for gradient in wanted.values())
        assert largest > 0
        with second(**options) as device:
            other.to(device)
            actual = step.run(other, device)
            assert actual.device == device
            actual.backward()
            found = _gradients(other)
            assert all(gradient.device == device for gradient in found.values())
            found = {name: gradient.cpu() for name, gradient in found.items()}
            actual = actual.detach().cpu()
        torch.testing.assert_close(actual, expected.detach(), atol=1e-5, rtol=1e-5)
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            # biases in front of a norm have gradients that are rounding alone, hence `largest`
            atol = 1e-3 * gradient.abs().max().item() + 1e-5 * largest.item()
            torch.testing.assert_close(found[name], gradient, atol=atol, rtol=0)

    return compare
