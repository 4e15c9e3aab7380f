"""The benchmark of a zero-shot evaluation runs at small sizes and would notice other results."""

import pytest
import torch

CPU = torch.device("cpu")
SIZES = {
    "image-size": 56, "width": 32, "depth": 2, "heads": 2, "mlp": 48, "embed-dim": 16,
    "text-width": 16, "text-heads": 2, "batch": 4, "images": 12, "classes": 6, "rounds": 1,
}  # fmt: skip


@pytest.fixture
def program(benchmark):
    return benchmark("clip_zero_shot")


@pytest.fixture
def args(program):
    return program.sized(program.parse([f"--{k}={v}" for k, v in SIZES.items()]), CPU)


@pytest.mark.slow
def test_every_figure(program, args):
    found = dict(program.figures(args, CPU))
    assert found.pop("largest difference of the features of classes") < 1e-5
    assert found.pop("difference of the numbers of correct predictions") == 0
    assert min(found.values()) > 0
    rates = {f"{part}: {who}, images/s" for part in ("pictures", "complete")
             for who in ("ours", "open_clip")}  # fmt: skip
    ratios = {f"{part}: times as fast as open_clip" for part in ("pictures", "texts", "complete")}
    assert rates | ratios <= found.keys()


def test_other_results_are_refused(program, args, monkeypatch):
    monkeypatch.setattr(program.Peer, "pictures", lambda self, texts: (-1, -1))
    with pytest.raises(ValueError, match="the two evaluations do not find the same"):
        list(program.figures(args, CPU))
