"""The command lines: training, continuing, evaluation, mmsegmentation's own tools, refusals."""

import importlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from eva_segmentation import evaluate, options, train

CLASSES = 5
pytestmark = pytest.mark.filterwarnings("ignore:The draw is False:UserWarning")
SMALLER = [
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "val_dataloader.batch_size=2",
    "test_dataloader.batch_size=2",
    "train_cfg.max_iters=3",
    "train_cfg.val_interval=3",
    "default_hooks.logger.interval=1",
    "default_hooks.checkpoint.interval=1",
    "default_hooks.checkpoint.max_keep_ckpts=-1",
    "log_level=WARNING",
]


def forget_runs():
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    for kind in (DefaultScope, MMLogger, MessageHub, SegLocalVisualizer):
        kind._instance_dict.clear()


@pytest.fixture(autouse=True)
def _forget_runs():
    """mmengine names what a process has only once after the time, in seconds."""
    yield
    forget_runs()


@pytest.fixture(scope="module", autouse=True)
def _restore_precision():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def config(tmp_path_factory, configs):
    """The debug config at 64 px on four small pictures, as the file of a user."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for part, number in (("training", 4), ("validation", 2)):
        for kind in ("images", "annotations"):
            (folder / kind / part).mkdir(parents=True)
        for index in range(number):
            picture = generator.integers(0, 255, (64, 64, 3), np.uint8)
            label_map = generator.integers(0, CLASSES + 1, (4, 4), np.uint8).repeat(16, 0)
            Image.fromarray(picture).save(folder / "images" / part / f"{index}.jpg")
            Image.fromarray(label_map.repeat(16, 1)).save(
                folder / "annotations" / part / f"{index}.png"
            )
    file = tmp_path_factory.mktemp("config") / "small.py"
    debug = configs / "demo" / "mask2former_eva_debug.py"
    cfg = Config.fromfile(debug)
    options.set_data_root(cfg, folder)
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.test_cfg.update(crop_size=(64, 64), stride=(32, 32))
    for loader in options.LOADERS:
        for transform in cfg[loader].dataset.pipeline:
            if "scale" in transform:
                transform.scale = (64, 64)
            if "crop_size" in transform:
                transform.crop_size = (64, 64)
    cfg.dump(file)
    return str(file)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """Work folder of three iterations."""
    folder = tmp_path_factory.mktemp("run")
    train.main([config, "--work-dir", str(folder), "--cfg-options", *SMALLER])
    forget_runs()
    return folder


def scalars(folder):
    (file,) = folder.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_trains_evaluates_and_saves(finished):
    log = scalars(finished)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 3
    assert all(np.isfinite(losses))
    assert any("mIoU" in entry for entry in log)
    saved = torch.load(finished / "iter_3.pth", weights_only=False)  # written by this test
    assert saved["meta"]["dataset_meta"]["classes"][-1] == "digit"


def test_mmsegmentations_own_train_script_computes_the_same_losses(
    finished, config, tmp_path, monkeypatch
):
    tools = Path(importlib.import_module("mmseg").__path__[0]) / ".mim" / "tools"
    arguments = [config, "--work-dir", str(tmp_path), "--cfg-options", *SMALLER]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    runpy.run_path(str(tools / "train.py"), run_name="__main__")
    ours, theirs = (
        [entry["loss"] for entry in scalars(folder) if "loss" in entry]
        for folder in (finished, tmp_path)
    )
    assert ours == theirs


def test_a_continued_run_goes_on_where_it_was(finished, config, tmp_path):
    shutil.copy(finished / "iter_2.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_2.pth"))
    train.main([config, "--work-dir", str(tmp_path), "--resume", "--cfg-options", *SMALLER])
    entries = [entry for entry in scalars(tmp_path) if "loss" in entry]
    assert [entry["iter"] for entry in entries] == [3]
    (expected,) = [e["lr"] for e in scalars(finished) if e.get("iter") == 3 and "lr" in e]
    assert entries[0]["lr"] == expected
    moved = torch.load(tmp_path / "iter_3.pth", weights_only=False)["state_dict"]
    before = torch.load(finished / "iter_2.pth", weights_only=False)["state_dict"]
    name = "decode_head.cls_embed.weight"
    assert not torch.equal(moved[name], before[name])
    assert (moved[name] - before[name]).abs().max() < 0.01  # not from the initial weights


@pytest.mark.slow
def test_two_processes_train_together_without_unused_parameters(config, configs, tmp_path):
    cfg = Config.fromfile(config)
    cfg.model.backbone.norm_cfg = dict(type="BN")  # SyncBN wants a GPU
    cfg.dump(tmp_path / "two.py")
    folder = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    script = [str(configs.parent / "train.py"), str(tmp_path / "two.py"), "--work-dir", str(folder)]
    run = subprocess.run(
        [*launch, "--standalone", *script, "--cfg-options", *SMALLER],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    losses = [entry["loss"] for entry in scalars(folder) if "loss" in entry]
    assert len(losses) == 3
    assert all(np.isfinite(losses))


def test_resume_without_a_checkpoint_starts_from_load_from(finished, config, tmp_path):
    train.main([config, "--work-dir", str(tmp_path), "--resume", "--cfg-options", *SMALLER])
    first, expected = (
        next(entry["loss"] for entry in scalars(folder)) for folder in (tmp_path, finished)
    )
    assert first == expected


def test_evaluation_of_a_run_gives_the_score_of_its_last_validation(finished, config, tmp_path):
    trained = next(entry["mIoU"] for entry in scalars(finished) if "mIoU" in entry)
    evaluate.main(
        [
            *(config, str(finished / "iter_3.pth"), "--work-dir", str(tmp_path)),
            *("--out", str(tmp_path / "maps"), "--cfg-options", "log_level=WARNING"),
        ]
    )
    (file,) = tmp_path.glob("*/*.json")
    assert json.loads(file.read_text())["mIoU"] == trained
    assert len(list((tmp_path / "maps").glob("*.png"))) == 2


def test_evaluation_refuses_weights_without_a_head(config, tmp_path):
    with pytest.raises(
        SystemExit, match=r"test.py: eva_debug.safetensors holds a backbone and no segmentor"
    ):
        evaluate.main([config, "eva_debug", "--work-dir", str(tmp_path)])


def test_evaluation_refuses_weights_for_other_classes(config, tmp_path):
    model = Config.fromfile(config).model
    model.decode_head.num_classes = 7
    torch.save({"state_dict": MODELS.build(model).state_dict()}, tmp_path / "seven.pth")
    with pytest.raises(SystemExit, match=re.escape("decode_head.cls_embed.weight (8, 64)")):
        evaluate.main([config, str(tmp_path / "seven.pth"), "--work-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--load-from", "eva_debugg"], "eva_debug"),
        (["--load-from", "nowhere.pth"], "nowhere.pth"),
        (["--data-root", "nowhere"], "no folder nowhere/images/training.*--data-root"),
        (["--cfg-options", "train_cfg.max_iter=3"], "close names: max_iters"),
        (["--cfg-options", "optim_wraper.optimizer.lr=1"], "close names: optim_wrapper"),
        (["--cfg-options", "param_scheduler.1.power=1"], "param_scheduler has the places 0 to 0"),
        (["--cfg-options", "work_dir_.x=1"], "has no 'work_dir_'"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, message, config, tmp_path):
    with pytest.raises(SystemExit, match=message):
        train.main([config, "--work-dir", str(tmp_path / "run"), *arguments])


def test_a_missing_config_is_named():
    with pytest.raises(SystemExit, match=r"train\.py: there is no config nowhere\.py"):
        train.main(["nowhere.py"])


def test_unknown_options_are_refused_and_new_arguments_of_a_type_are_not(config):
    cfg = Config.fromfile(config)
    options.check_options(cfg, {"model.backbone.n_points": 2, "param_scheduler.0.power": 0.9})
    with pytest.raises(ValueError, match="has no 'learning_rate'"):
        options.check_options(cfg, {"learning_rate": 2})
    with pytest.raises(ValueError, match="and has no 'x'"):
        options.check_options(cfg, {"load_from.x": 2})


@pytest.mark.parametrize("script", ["train.py", "test.py"])
def test_the_scripts_are_thin(script, configs):
    text = (configs.parent / script).read_text()
    assert len(text.splitlines()) <= 25
    assert "eva_segmentation" in text
