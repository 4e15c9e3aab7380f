"""Commands on GPUs: trainings on two, batches by processes and by Ray, memory beside the plan.

Each is a process of its own. Models are tiny, but for the plan.
"""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

ROOT = Path(__file__).parents[2]
EVA = ("-m", "eva_command")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *EVA)
PLANNED = {  # on a GPU at full size; the recipe of a CPU is only to try the test out
    "cuda": [f"custom/cascade_mask_rcnn_vitdet_eva_{size}_24gb" for size in "lg"],
    "cpu": ["classification eva_debug_digits_linear"],
}  # fmt: skip


@pytest.fixture(scope="session")
def call(gpu):
    """Function: run Python with words in a process of its own; what it printed."""
    launcher = r"(LOCAL_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE|MASTER_(ADDR|PORT)"
    plain = {name: one for name, one in os.environ.items() if not re.fullmatch(launcher, name)}
    if gpu.type == "cpu":
        plain |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}

    def run(*words, **variables):
        ended = subprocess.run(
            [sys.executable, *map(str, words)], env=plain | variables,
            capture_output=True, text=True, timeout=540, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]
        return ended.stdout

    return run


@pytest.fixture
def two_devices(gpu):
    """For what needs a second GPU; a CPU has two processes."""
    if gpu.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("name", ["detection", "mmdetection", "segmentation"])
def test_a_framework_on_two_gpus_continues_on_one(gpu, call, trainers, name, tmp_path):
    trainer = trainers(name)
    if name == "detection":
        more = (f"train.device={gpu.type}", f"train.amp.enabled={gpu.type == 'cuda'}",
                "dataloader.train.total_batch_size=4")  # fmt: skip
        first, both = EVA, ("--num-gpus", 2, "--dist-url", "auto")
    else:
        more = (f"env_cfg.dist_cfg.backend={'nccl' if gpu.type == 'cuda' else 'gloo'}",)
        first, both = TWO, ()
    variables = {key: str(value) for key, value in trainer.variables.items()}
    call(*first, *trainer.command(tmp_path / "out", *more, *both, steps=3)[1:], **variables)
    call(*EVA, *trainer.command(tmp_path / "out", *more, "--resume")[1:], **variables)
    lines = [line for line in trainer.logged(tmp_path / "out") if trainer.loss in line]
    assert len(lines) == 6
    assert all(math.isfinite(line[trainer.loss]) for line in lines)
    weights = trainer.weights(tmp_path / "out")
    assert weights
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("kind", ["processes", "actors of Ray"])
def test_features_of_a_batch(gpu, call, demo, kind, tmp_path):
    """By a process for each GPU, and by Ray's actors: those of this command's own process."""
    if kind == "processes":
        words = ("--processes", max(2, torch.cuda.device_count()))
    else:
        pytest.importorskip("ray")
        words = ("--address", "local")
    images = demo("coco") / "coco/train"
    common = ("--weights", "eva_debug", "--device", gpu.type, "--shard-size", 4, "--store", "fp32")
    rows = {}
    for name, more in {"one": ("--processes", 0), "several": words}.items():
        call(*EVA, "batch", "features", images, "--output", tmp_path / name, *common, *more)
        file = tmp_path / f"{name}.parquet"
        call(*EVA, "batch", "merge", tmp_path / name, "--output", file)
        rows[name] = pq.read_table(file).to_pylist()
    assert len(rows["one"]) == len(rows["several"]) == 16
    for one, other in zip(rows["one"], rows["several"], strict=True):
        arrays = {key: value for key, value in one.items() if isinstance(value, list)}
        assert arrays
        for key, value in arrays.items():
            np.testing.assert_allclose(other[key], value, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("number", [0, 1], ids=["EVA-L", "EVA-g"])
def test_the_peak_of_a_training_is_as_planned(gpu, call, report, number, tmp_path):
    """A detector of real size in the precision of its recipe, two steps of random weights."""
    if number >= len(PLANNED[gpu.type]):
        pytest.skip("too large for a CPU")
    words = (ROOT / "benchmarks/memory_plan.py", PLANNED[gpu.type][number])
    row = call(*words, TMPDIR=str(tmp_path)).splitlines()[-1]
    name, planned, measured, ratio = (cell.strip() for cell in row.strip("| ").split("|"))
    report(f"{name}: plan {planned} GiB, measured {measured} GiB")
    assert 0.85 < float(ratio) < 1.3
