"""`eva plan` knows a step's memory before it is spent; `--batch` divides a step and keeps it."""

import contextlib
import json
import os
import re
import subprocess
import sys
from functools import partial
from itertools import accumulate

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from eva_backbone import build_vit
from eva_backbone.layer_decay import freeze_vit
from eva_backbone.resample import CACHES
from eva_command.main import main
from eva_runs.memory import MeasuredStep, measure, optimizer_bytes_per_weight, plan

MIB = 2**20
RECIPES = {
    "eva_classification.training": ("eva_debug_digits",),
    "eva_video.training": ("eva_debug_motion",),
    "eva_contrastive.training": ("eva_debug_captions",),
    "eva_pretrain.training": ("eva_debug_digit_scenes",),
    "eva_detection.planning": (
        "demo/cascade_mask_rcnn_vitdet_eva_debug",
        "dataloader.train.total_batch_size=2",
    ),
    "eva_mmdetection.planning": ("demo/cascade_mask_rcnn_eva_debug",),
    "eva_segmentation.planning": ("demo/upernet_eva_debug", "train_dataloader.batch_size=4"),
}
SMALL = ("eva_classification.training", "eva_detection.planning", "eva_segmentation.planning")


def step(width=512, batch=1024, *, accumulate=1, wrap=None, **more):
    """A step of a small network, real or planned."""
    model = nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, 64))
    images = model[0].weight.new_empty(batch, 64)
    called = wrap(model) if wrap else model

    def loss():
        return called(images).square().mean()

    return MeasuredStep(
        called, loss, optimizer_bytes_per_weight(torch.optim.AdamW), batch, accumulate, 64, **more
    )


def deep(checkpointing=False):
    """A step of a ViT with blocks of two kinds, the first two of which are frozen."""
    windows = {"window_size": 4, "global_attn_indexes": (3, 6, 8), "rel_pos": "vitdet"}
    more = {"extra_tokens": (), "activation_checkpointing": checkpointing}
    vit = build_vit("eva_debug", depth=9, **windows, **more)
    freeze_vit(vit, patch_embed=False, blocks=2)
    images = vit.pos_embed.new_empty(4, 3, 128, 128)

    def loss():
        return vit.forward_features(images).square().mean()

    return MeasuredStep(vit, loss, optimizer_bytes_per_weight(torch.optim.AdamW), 4, 1, 128)


def with_bias_table(side=192):
    """A step of a ViT whose blocks share one index of their bias tables, 2.7 MB at 192 px."""
    vit = build_vit("eva_debug", depth=6, rel_pos="table", img_size=side, layer_scale=0.1)
    images = vit.pos_embed.new_empty(1, 3, side, side)

    def loss():
        return vit.forward_features(images).square().mean()

    return MeasuredStep(vit, loss, optimizer_bytes_per_weight(torch.optim.AdamW), 1, 1, side)


def measured_peak(build):
    """The largest sum in bytes of what three steps of a real model have allocated at once."""
    for results in CACHES:  # an earlier plan's, as a plan does
        results.clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        real = build()
        optimizer = torch.optim.AdamW([p for p in real.model.parameters() if p.requires_grad])
        for _ in range(3):
            for micro in range(real.accumulate):
                last = micro == real.accumulate - 1
                with contextlib.nullcontext() if last else real.model.no_sync():
                    real.loss().backward()
            optimizer.step()
            optimizer.zero_grad()
    events = [e.nbytes() for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(events))


def test_a_plan_counts_what_a_real_step_allocates():
    planned = measure(step)
    weights = 4 * (64 * 512 + 512 + 512 * 64 + 64)
    assert planned["trainable"] * 4 == planned["parameters"] * 4 == planned["gradients"] == weights
    assert planned["optimizer"] == 2 * weights
    assert planned["weights"] == weights + 1024 * 64 * 4  # with the images
    assert planned["peak"] == pytest.approx(measured_peak(step), rel=0.05)


@pytest.mark.parametrize("checkpointing", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_plan_counts_what_a_vit_allocates(checkpointing):
    planned = measure(lambda: deep(checkpointing))
    assert planned["frozen"] == 2
    assert planned["gradients"] == pytest.approx(4 * planned["trainable"], rel=0.02)
    assert planned["peak"] == pytest.approx(measured_peak(lambda: deep(checkpointing)), rel=0.1)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_of_several_processes_lie_in_their_buckets(device, accumulate):
    """All the time, and while a step accumulates beside the sum."""
    shared = partial(DistributedDataParallel, gradient_as_bucket_view=True)
    sizes = {"width": 2**14, "batch": 16, "accumulate": accumulate}
    planned = measure(lambda: step(**sizes, processes=2))
    expected = pytest.approx(planned["peak"], rel=0.05)
    peaks = (measured_peak(lambda: step(**sizes, wrap=shared)) for _ in range(20))
    assert any(peak == expected for peak in peaks)  # gloo may hold a copy longer


@pytest.mark.slow
def test_a_plan_does_not_depend_on_earlier_plans():
    first, small = measure(with_bias_table), measure(lambda: with_bias_table(160))
    assert (measure(with_bias_table), measure(lambda: with_bias_table(160))) == (first, small)
    assert first["peak"] == pytest.approx(measured_peak(with_bias_table), rel=0.05)


def test_no_content_is_allocated():
    planned = measure(lambda: step(width=2**20, batch=2**16))  # 256 GiB of activations, and more
    assert planned["peak"] > 2**38


@pytest.mark.parametrize(
    "module",
    [pytest.param(m, marks=[pytest.mark.slow] * (m not in SMALL)) for m in RECIPES],
)
def test_each_task_plans_less_with_a_smaller_micro_batch(module):
    whole = plan(module, RECIPES[module])
    half = str(whole["batch"] // 2)
    few = plan(module, [*RECIPES[module], "--batch", half])
    assert (few["batch"], few["accumulate"]) == (int(half), 2 * whole["accumulate"])
    assert few["weights"] < whole["weights"] + MIB
    assert few["activations"] < 0.7 * whole["activations"]
    assert few["peak"] < whole["peak"]


def test_an_image_that_no_memory_holds_ends_in_one_line(call_eva, fails):
    ended = call_eva("eva", "plan", "classification/eva_debug_digits", "--image-size", "1000000")
    fails(ended, "can't allocate memory", "--batch", "--image-size")


def test_a_table_with_what_makes_it_fit(capsys):
    assert main(["plan", "classification/eva_debug_digits", "--image-size", "96"]) == 0
    out = capsys.readouterr().out
    rows = {line[:28].strip(): line[28:].split() for line in out.splitlines()}
    assert {"as it is", "fp32", "fp32, checkpointing", "bf16, fp16, checkpointing"} <= {*rows}
    kept = [float(rows[name][3]) for name in ("fp32", "bf16, fp16", "bf16, fp16, checkpointing")]
    assert kept == sorted(kept, reverse=True)
    assert kept[2] < kept[0] / 3
    assert re.search("^12 GB: .* as it is$", out, re.MULTILINE)
    assert "96 px" in out


def test_wrong_words_are_the_librarys_errors(capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["plan", "eva_no_such_recipe"])
    assert "eva_no_such_recipe" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "eva_debug_digits", "run.batch_sise=3"])
    assert "sise" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "eva_debug_digits", "--batch", "5"])
    assert "--batch 5" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "--image-size", "64", "eva_debug_digits"])  # 64 is no recipe
    assert "RECIPE comes before --image-size" in capsys.readouterr().err
    detector = "detection/demo/cascade_mask_rcnn_vitdet_eva_debug"
    with pytest.raises(SystemExit):
        main(["plan", detector, "--num-gpus", "3"])  # its training would refuse it
    assert "3 processes" in capsys.readouterr().err


def test_iterations_of_mmengine_follow_the_micro_batch():
    from eva_openmmlab.config import load_config, set_batch
    from eva_runs.recipes import find_recipe
    from eva_runs.request import RunRequest

    cfg = load_config(find_recipe("segmentation", "demo/upernet_eva_debug"))
    images = cfg.train_dataloader.batch_size
    before = cfg.train_cfg.max_iters, cfg.param_scheduler[0].warmup_iters
    set_batch(cfg, RunRequest(batch=images // 4))
    assert cfg.train_dataloader.batch_size * cfg.optim_wrapper.accumulative_counts == images
    assert (cfg.train_cfg.max_iters, cfg.param_scheduler[0].warmup_iters) == tuple(
        4 * one for one in before
    )
    assert cfg.train_cfg.val_interval % 4 == cfg.default_hooks.checkpoint.interval % 4 == 0


@pytest.mark.parametrize(("free", "batch"), [(1e11, 16), (45e6, 4)])
def test_batch_auto_takes_what_fits_and_keeps_the_step(monkeypatch, capsys, free, batch):
    monkeypatch.setattr("eva_runs.memory.free_memory", lambda device: int(free))
    words = ["classification", "train", "eva_debug_digits", "--run.batch-size", "4"]
    main([*words, "--run.accumulate", "4", "--batch=auto", "--print-config"])
    out = capsys.readouterr().out
    run = json.loads(out[out.index("{") :])["run"]
    assert run["batch_size"] * run["accumulate"] == 16
    assert run["batch_size"] == batch


DEVICE = """
import importlib.abc, os, sys

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "deepspeed":
            print("ACCELERATOR", os.environ.get("DS_ACCELERATOR"))

sys.meta_path.insert(0, Watch())
from eva_command.main import main
main(["classification", "train", "eva_debug_digits", *sys.argv[1:], "--print-config"])
"""


@pytest.mark.slow
def test_batch_auto_plans_on_the_device_of_the_run():
    """DeepSpeed chooses an accelerator when it is imported."""
    words = [sys.executable, "-c", DEVICE, "--batch", "auto", "--run.device", "cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert "ACCELERATOR cpu" in done.stdout
