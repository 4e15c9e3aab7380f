"""The benchmarks of training steps and evaluations run, and would notice unequal work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = ["--width=32", "--depth=2", "--heads=2", "--batch=2", "--rounds=1"]


def run(program, *arguments):
    """Figures that a program prints; in a process of its own, as DeepSpeed starts only once."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, str(ROOT / "benchmarks" / program), *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    lines = (line.rpartition(": ") for line in done.stdout.splitlines()[1:] if ": " in line)
    return {name: float(value) for name, _, value in lines}


@pytest.fixture
def clip_args(benchmark):
    parser = benchmark("clip_models").parser_of_towers(None, batch=4)
    return parser.parse_args(["--size=trial", "--rounds=1", "--precision=fp32"])


@pytest.mark.slow
def test_every_figure_of_a_contrastive_step():
    found = run("clip_step.py", "--size=trial", "--batch=4", "--rounds=1")
    differences = [value for name, value in found.items() if "difference" in name]
    assert len(differences) == 6
    assert max(differences) < 1e-4
    scale = "gradient of the logit scale in ours"
    assert found[f"ours in 2 micro-batches: {scale}"] == pytest.approx(1, abs=1e-3)
    assert found[f"open_clip in 2: {scale}"] == pytest.approx(2, abs=1e-3)
    for case in ("plain", "checkpoints", "patch dropout 0.5", "2 micro-batches"):
        assert found[f"{case}: times as fast as open_clip"] > 0
    flops = "ours, GFLOP a pair"
    assert found[f"patch dropout 0.5: {flops}"] < found[f"plain: {flops}"]


def test_unequal_contrastive_steps_are_refused(benchmark, clip_args, monkeypatch):
    program = benchmark("clip_step")

    def other(size):
        model = program.build_peer(size)
        model.visual.trunk.norm.eps = 0.1
        return model

    monkeypatch.setitem(program.BUILDERS, "open_clip", other)
    with pytest.raises(ValueError, match=r"open_clip, .* the steps do not do the same"):
        list(program.check(clip_args, CPU))


@pytest.mark.slow
def test_the_stock_model_has_our_sizes(benchmark, clip_args):
    """`--size complete` is EVA-CLIP-g of both."""
    program, models = benchmark("clip_step"), benchmark("clip_models")
    clip_args.size = "complete"
    with torch.device("meta"):
        ours, peer = models.build_ours("complete"), models.build_peer("complete")
    weights = models.peer_weights(ours.state_dict())
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in peer.state_dict().items()
    }
    assert sum(value.numel() for value in weights.values()) == 1_136_435_841
    flops = [program.flops_of(who, clip_args) for who in program.BUILDERS]
    assert flops == [pytest.approx(3 * 537.1e9, rel=1e-3), pytest.approx(3 * 547.4e9, rel=1e-3)]


@pytest.mark.slow
def test_every_figure_of_a_zero_shot_evaluation(benchmark, monkeypatch):
    program = benchmark("clip_zero_shot")
    args = program.parse(["--size=trial", "--images=20", "--rounds=1", "--precision=fp32"])
    found = dict(program.figures(args, CPU))
    assert found.pop("largest difference of the features of classes") < 1e-5
    assert found.pop("difference of the numbers of correct predictions") == 0
    assert min(found.values()) > 0
    monkeypatch.setattr(program, "peer_count", lambda *_: [-1, -1])
    with pytest.raises(ValueError, match="the two evaluations do not find the same"):
        list(program.figures(args, CPU))


@pytest.mark.slow
def test_every_figure_of_a_pretraining_step():
    found = run("pretrain_step.py", *TINY, "--drop-path=0.1")
    assert found["a plain step: difference of the gradients from ours"] < 1e-4
    assert found["drop path 0.1: times as fast as a plain step"] > 0


def test_unequal_pretraining_steps_are_refused(benchmark, monkeypatch):
    program = benchmark("pretrain_step")

    class Other(program.PlainModel):
        def forward(self, images, mask):
            return super().forward(images, ~mask)[: int(mask.sum())]

    monkeypatch.setattr(program, "PlainModel", Other)
    with pytest.raises(ValueError, match=r"a plain step, .* the steps do not do the same"):
        list(program.compare(program.parse(TINY), CPU))
