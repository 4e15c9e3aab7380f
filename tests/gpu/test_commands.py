"""Commands on GPUs: trainings on two, batches by processes and by Ray, memory beside the plan.

Each is a process of its own. Models are tiny, but for the plan.
"""

import json
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
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64}
DETECTION = (
    "detection", "train", "demo/cascade_mask_rcnn_vitdet_eva_debug", "train.init_checkpoint=",
    "train.log_period=1", "train.seed=3", "train.checkpointer.period=3",
    "dataloader.train.num_workers=0", "dataloader.train.total_batch_size=4",
    *(f"model.backbone.net.{name}={value}" for name, value in SMALL.items()),
    "model.backbone.net.global_attn_indexes=[1]",
)  # fmt: skip
MMENGINE = """
_base_ = {base!r}
load_from = None
env_cfg = dict(dist_cfg=dict(backend={backend!r}))
model = dict(backbone=dict({vit}))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3))
"""
RECIPES = {
    "mmdetection": ("cascade_mask_rcnn_eva_debug.py", "coco", {"global_attn_indexes": [1]}),
    "segmentation": ("upernet_eva_debug.py", "semantic", {}),
}
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


@pytest.fixture(scope="session")
def scenes(call, tmp_path_factory):
    """Function: folder of demo data of a format."""
    made = tmp_path_factory.mktemp("scenes")

    def make(name):
        folder = made / name / "digit_scenes"
        if not folder.exists():
            words = ("--formats", name, "--train", 16, "--val", 4, "--workers", 1)
            call(*EVA, "data", "make-demo", "--output", folder, *words)
        return folder / name

    return make


@pytest.fixture
def two_devices(gpu):
    """For what needs a second GPU; a CPU has two processes."""
    if gpu.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")


def assert_finite(tensors):
    assert tensors
    for name, value in tensors.items():
        assert value.isfinite().all(), name


@pytest.mark.usefixtures("two_devices")
def test_detection_on_two_gpus_continues_on_one(gpu, call, scenes, tmp_path):
    device = (f"train.device={gpu.type}", f"train.output_dir={tmp_path}")
    half = (f"train.amp.enabled={gpu.type == 'cuda'}",)
    data = {"DETECTRON2_DATASETS": str(scenes("coco").parents[1])}
    both = ("--num-gpus", 2, "--dist-url", "auto")
    call(*EVA, *DETECTION, *device, *half, "train.max_iter=3", *both, **data)
    call(*EVA, *DETECTION, *device, *half, "train.max_iter=6", "--resume", **data)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}
    assert sorted(losses) == list(range(6))
    assert all(map(math.isfinite, losses.values()))
    assert_finite(torch.load(tmp_path / "model_final.pth", weights_only=True)["model"])


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("name", RECIPES)
def test_mmengine_on_two_gpus_continues_on_one(gpu, call, scenes, name, tmp_path):
    recipe, data, more = RECIPES[name]
    vit = ", ".join(f"{key}={value}" for key, value in (SMALL | more).items())
    config, backend = tmp_path / "small.py", "nccl" if gpu.type == "cuda" else "gloo"
    base = str(ROOT / name / "configs/demo" / recipe)
    config.write_text(MMENGINE.format(base=base, backend=backend, vit=vit))
    words = [name, "train", config, "--data-root", scenes(data), "--work-dir", tmp_path / "out"]
    call(*TWO, *words, "train_cfg.max_iters=3", "train_cfg.val_interval=3")
    call(*EVA, *words, "--resume", "train_cfg.max_iters=6", "train_cfg.val_interval=6")
    files = (tmp_path / "out").glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert sorted(losses) == list(range(1, 7))
    assert all(map(math.isfinite, losses.values()))
    content = torch.load(tmp_path / "out/iter_6.pth", weights_only=False)  # written by this test
    assert_finite(content["state_dict"])


@pytest.mark.parametrize("kind", ["processes", "actors of Ray"])
def test_features_of_a_batch(gpu, call, scenes, report, kind, tmp_path):
    """By a process for each GPU, and by Ray's actors: those of this command's own process."""
    if kind == "processes":
        words = ("--processes", max(2, torch.cuda.device_count()))
    else:
        pytest.importorskip("ray")
        words = ("--address", "local")
    images = scenes("coco") / "train"
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
