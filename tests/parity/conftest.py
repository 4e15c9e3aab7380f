"""The comparison of gradients that the parity tests share."""

import pytest
import torch


def _assert_same_gradients(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, grad in theirs.items():
        scale = grad.abs().max()
        assert scale > 1e-3, f"{name} has no gradient to compare"
        torch.testing.assert_close(
            mine[name] / scale,
            grad / scale,
            atol=2e-5,
            rtol=1e-4,
            msg=lambda message, name=name: f"{name}: {message}",
        )


@pytest.fixture(scope="session")
def assert_same_gradients():
    """Function: compare name -> gradient, relative to each gradient's largest value."""
    return _assert_same_gradients
