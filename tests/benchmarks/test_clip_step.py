"""The benchmark of a contrastive step runs at small sizes and would notice unequal steps."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "clip_step.py"
SIZES = {
    "image-size": 56, "width": 32, "depth": 2, "heads": 2, "mlp": 48, "embed-dim": 16,
    "text-width": 16, "text-heads": 2, "words": 64, "batch": 4, "device": "cpu",
}  # fmt: skip
SMALL = [*(f"--{name}={value}" for name, value in SIZES.items()), "--micro-batches", "2", "4"]
ROWS = ["plain", "checkpoints", "patch dropout 0.5", "2 micro-batches"]


@pytest.fixture(scope="module")
def program(benchmark):
    return benchmark("clip_step")


@pytest.fixture
def args(program):
    return program.sized(program.parse(SMALL), torch.device("cpu"))


def run(*arguments):
    """What the program prints; in a process of its own, as DeepSpeed starts only once."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "clip")))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    command = [sys.executable, str(FILE), *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[1:]


@pytest.mark.slow
def test_every_row():
    """The code path of a GPU too: half precision, each step alone."""
    lines = run(*SMALL, "--rounds=1", "--precision=bf16", "--micro-batches", "2")
    figures = dict(line.rsplit(": ", 1) for line in lines if not line.startswith("|") and line)
    differences = [float(value) for name, value in figures.items() if "difference" in name]
    assert len(differences) == 6
    assert max(differences) < 1e-4
    scale = "gradient of the logit scale in ours"
    assert float(figures[f"ours in 2 micro-batches: {scale}"]) == pytest.approx(1, abs=1e-3)
    assert float(figures[f"open_clip in 2: {scale}"]) == pytest.approx(2, abs=1e-3)
    header, _, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert [row[0] for row in rows] == ROWS
    plain, *others = [dict(zip(header, row, strict=True)) for row in rows]
    for cells in (plain, *others):
        for name in header[1:6]:
            one, other = map(float, cells[name].split("; "))
            assert min(one, other) > 0, (cells["step"], name)
    assert plain["times as fast as our plain step"] == "1 (1 to 1)"

    def ours(row, column):
        return float(row[column].partition("; ")[0])

    # activations of half a batch, or of half of the patches, or of a block at a time
    assert all(ours(row, "of the passes") < ours(plain, "of the passes") for row in others)
    assert ours(others[1], "GFLOP a pair") < ours(plain, "GFLOP a pair")


def test_a_gpu_s_order_and_its_memory(program, args, monkeypatch):
    """One step after the other; what does not fit gives no figures, and the table goes on."""
    kept = []

    def start(who, case, args, device):
        if who == "open_clip":
            raise torch.OutOfMemoryError
        kept.append(case)
        return program.Started(lambda: None, (2.0, 1.0))

    monkeypatch.setattr(program, "start", start)
    monkeypatch.setattr(program, "timed", lambda call, device: (0.5, 0.1))
    monkeypatch.setattr(program, "peak_flops", lambda device: 1e12)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    plain, *_, last = program.compare(args, torch.device("cuda"))
    assert len(kept) == 5
    assert plain["s: ours; open_clip"] == "0.5; out of memory"
    assert plain["times as fast as open_clip"] == ""
    assert last["times as fast as our plain step"] == "1 (1 to 1)"
    flops = program.flops_of("ours", program.PLAIN, args)
    share = float(plain["of peak FLOPs"].partition("; ")[0])
    assert share == pytest.approx(args.batch / 0.5 * flops / 1e12, rel=1e-2)
    assert not any("CPU" in name for name in plain)


def test_unequal_steps_are_refused(program, args, monkeypatch):
    def other(args, case=program.PLAIN):
        model = program.build_peer(args, case)
        model.visual.trunk.norm.eps = 0.1
        return model

    monkeypatch.setitem(program.STEPS, "open_clip", (other, program.peer_step))
    with pytest.raises(ValueError, match=r"open_clip, .* the steps do not do the same"):
        list(program.check(args, torch.device("cpu")))


def test_the_stock_model_has_our_sizes(program):
    """`--complete` is EVA-CLIP-g of both."""
    complete = program.sized(program.parse(["--complete"]), torch.device("cpu"))
    with torch.device("meta"):
        ours, peer = program.build_ours(complete), program.build_peer(complete)
    weights = program.peer_weights(ours.state_dict())
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in peer.state_dict().items()
    }
    assert sum(value.numel() for value in weights.values()) == 1_136_435_841
    flops = [program.flops_of(who, program.PLAIN, complete) for who in program.STEPS]
    assert flops == [pytest.approx(3 * 537.1e9, rel=1e-3), pytest.approx(3 * 547.4e9, rel=1e-3)]
    assert math.isclose(flops[1] / flops[0], 1.019, rel_tol=1e-3)


def test_a_batch_that_cannot_be_divided(program, capsys):
    with pytest.raises(SystemExit):
        program.parse([*SMALL, "--micro-batches", "3"])
    assert "--batch 4 cannot be divided into 3 micro-batches" in capsys.readouterr().err
