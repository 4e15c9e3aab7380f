"""The benchmark of a pre-training step runs at small sizes and would notice unequal steps."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "pretrain_step.py"
SIZES = {"image-size": 56, "width": 32, "depth": 2, "heads": 2, "mlp": 48, "batch": 2}
SMALL = [
    *(f"--{name}={value}" for name, value in SIZES.items()),
    *("--rounds=1", "--teacher=ViT-S-16", "--teacher-layers=1", "--drop-path"),
]
BOTH = ("seconds", "samples/s", "model TFLOP/s", "peak GiB with weights and optimizer")


@pytest.fixture(scope="module")
def program(benchmark):
    return benchmark("pretrain_step")


def run(*arguments):
    """Figures that the program prints; in a process of its own, as DeepSpeed starts only once."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "pretrain")))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    command = [sys.executable, str(FILE), *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()[1:]
    return {name: float(value) for name, _, value in (line.rpartition(": ") for line in lines)}


@pytest.mark.slow
def test_every_figure(program):
    found = run(*SMALL, "0.1", "0.4")
    expected = {"difference of the losses", "relative difference of the gradients"}
    for rate in ("drop path 0.1", "drop path 0.4"):
        expected |= {f"{rate}: {who}, {what}" for who in ("ours", "plain") for what in BOTH}
        ratio = f"{rate}: times the samples/s of the plain step"
        expected |= {ratio, f"{ratio}, by CPU time"}
    assert set(found) == expected
    assert all(math.isfinite(value) for value in found.values())
    assert min(value for name, value in found.items() if "drop path" in name) > 0
    # both count what they hold: weights, gradients, two moments, and little else
    model = program.build("plain", program.parse([*SMALL, "0"]), 0.0, target_dim=384)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for who in ("ours", "plain"):
        peak = found[f"drop path 0.1: {who}, peak GiB with weights and optimizer"] * 2**30
        assert 16 * parameters < peak < 16 * parameters + 2**21


def test_unequal_steps_are_refused(program, monkeypatch):
    class Other(program.PlainModel):
        def forward(self, images, mask):
            return super().forward(images, ~mask)[: int(mask.sum())]

    monkeypatch.setattr(program, "PlainModel", Other)
    with pytest.raises(ValueError, match=r"difference of the losses is .* do not do the same"):
        list(program.compare(program.parse([*SMALL, "0.1"]), torch.device("cpu")))


def test_unknown_teacher(program):
    with pytest.raises(ValueError, match="--teacher RN50 is not a ViT"):
        program.build_teacher(program.parse(["--teacher", "RN50"]), torch.device("cpu"))
