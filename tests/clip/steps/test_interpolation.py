"""Weights between two files: arithmetic, notes, and the command."""

import torch

from eva_contrastive.interpolation import interpolate


def test_the_arithmetic_is_in_float32():
    start = {"w": torch.tensor([1.0, -2.0]).half(), "b": torch.tensor([0.5])}
    end = {"b": torch.tensor([1.5]), "w": torch.tensor([2.0, 2.0 + 2**-20])}
    found = interpolate(start, end, 0.25)
    assert list(found) == ["b", "w"]
    assert found["b"].tolist() == [0.75]
    assert found["w"].tolist() == [1.25, -1.0 + 2**-22]
    assert {value.dtype for value in found.values()} == {torch.float32}
    for share, expected in ((0, start), (1, end)):
        found = interpolate(start, end, share)
        assert all(value.equal(expected[name].float()) for name, value in found.items())
