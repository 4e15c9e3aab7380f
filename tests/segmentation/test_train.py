"""The command lines: training, continuing, mmsegmentation's own tools, refusals."""

import importlib
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
from mmseg.registry import MODELS

from eva_openmmlab.config import options
from eva_segmentation.evaluation import evaluate
from eva_segmentation.model.segmentor import EVASegmentor
from eva_segmentation.training import train

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


@pytest.fixture(scope="module")
def config(tmp_path_factory, configs, write_pairs):
    """The debug config at 64 px on four small pictures, as the file of a user."""
    folder = tmp_path_factory.mktemp("data")
    for part, names in (("training", "0123"), ("validation", "01")):
        sizes = dict.fromkeys(names, (64, 64))
        write_pairs(folder / "images" / part, folder / "annotations" / part, sizes, range(6))
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
def finished(config, launch, tmp_path_factory):
    """Work folder of three iterations."""
    folder = tmp_path_factory.mktemp("run")
    launch(train, config, "--work-dir", folder, "--cfg-options", *SMALLER)
    return folder


def test_a_run_trains_evaluates_and_saves(finished, scalars):
    log = scalars(finished)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 3
    assert all(np.isfinite(losses))
    assert any("mIoU" in entry for entry in log)
    saved = torch.load(finished / "iter_3.pth", weights_only=False)  # written by this test
    assert saved["meta"]["dataset_meta"]["classes"][-1] == "digit"


def test_mmsegmentations_own_train_script_computes_the_same_losses(
    finished, config, tmp_path, monkeypatch, scalars, forget_runs
):
    tools = Path(importlib.import_module("mmseg").__path__[0]) / ".mim" / "tools"
    arguments = [config, "--work-dir", str(tmp_path), "--cfg-options", *SMALLER]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    precision = torch.get_float32_matmul_precision()
    try:
        runpy.run_path(str(tools / "train.py"), run_name="__main__")
    finally:
        forget_runs()
        torch.set_float32_matmul_precision(precision)
    ours, theirs = (
        [entry["loss"] for entry in scalars(folder) if "loss" in entry]
        for folder in (finished, tmp_path)
    )
    assert ours == theirs


def test_a_continued_run_goes_on_where_it_was(finished, config, launch, scalars, tmp_path):
    shutil.copy(finished / "iter_2.pth", tmp_path)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_2.pth"))
    launch(train, config, "--work-dir", tmp_path, "--resume", "--cfg-options", *SMALLER)
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
def test_two_processes_train_together_without_unused_parameters(config, configs, scalars, tmp_path):
    """With the config as it is: SyncBN wants a GPU and gives way."""
    folder = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    script = [str(configs.parent / "train.py"), config, "--work-dir", str(folder)]
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
    assert "SyncBN needs a GPU" in run.stdout + run.stderr


def test_resume_without_a_checkpoint_starts_from_load_from(
    finished, config, launch, scalars, tmp_path
):
    launch(train, config, "--work-dir", tmp_path, "--resume", "--cfg-options", *SMALLER)
    first, expected = (
        next(entry["loss"] for entry in scalars(folder)) for folder in (tmp_path, finished)
    )
    assert first == expected


def test_evaluation_refuses_weights_without_a_head(config, launch, tmp_path):
    with pytest.raises(
        SystemExit, match=r"test.py: eva_debug.safetensors holds a backbone and not a segmentor"
    ):
        launch(evaluate, config, "eva_debug", "--work-dir", tmp_path)


def test_evaluation_refuses_weights_for_other_classes(config, launch, tmp_path):
    model = Config.fromfile(config).model
    model.decode_head.num_classes = 7
    torch.save({"state_dict": MODELS.build(model).state_dict()}, tmp_path / "seven.pth")
    with pytest.raises(SystemExit, match=re.escape("decode_head.cls_embed.weight (8, 64)")):
        launch(evaluate, config, tmp_path / "seven.pth", "--work-dir", tmp_path)


def test_a_fault_inside_keeps_its_traceback_and_unfit_weights_give_a_sentence(
    tiny_run, launch, monkeypatch, tmp_path
):
    def loss(*_):
        raise ValueError("a fault of the program")

    monkeypatch.setattr(EVASegmentor, "loss", loss)
    with pytest.raises(ValueError, match="a fault of the program"):
        launch(train, tiny_run / "tiny.py", "--work-dir", tmp_path / "one")
    state = torch.load(tiny_run / "run" / "iter_1.pth", weights_only=False)["state_dict"]
    shallow = {name: value for name, value in state.items() if ".blocks.1." not in name}
    torch.save(shallow, tmp_path / "shallow.pth")
    unfit = ("--load-from", tmp_path / "shallow.pth")
    with pytest.raises(SystemExit, match=r"train\.py: .*backbone\.net\.blocks\.1\.") as stop:
        launch(train, tiny_run / "tiny.py", "--work-dir", tmp_path / "two", *unfit)
    assert len(str(stop.value).splitlines()) == 1
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--load-from", "eva_debugg"], "eva_debug"),
        (["--load-from", "nowhere.pth"], "nowhere.pth"),
        (["--data-root", "nowhere"], "--data-root nowhere is not a folder"),
        (["--cfg-options", "train_cfg.max_iter=3"], "close to it: max_iters"),
        (["--cfg-options", "optim_wraper.optimizer.lr=1"], "close to it: optim_wrapper"),
        (["--cfg-options", "param_scheduler.1.power=1"], "param_scheduler has the places 0 to 0"),
        (["--cfg-options", "work_dir_.x=1"], "has no 'work_dir_'"),
    ],
)
def test_mistakes_end_in_one_sentence(arguments, message, config, launch, tmp_path):
    with pytest.raises(SystemExit, match=message):
        launch(train, config, "--work-dir", tmp_path / "run", *arguments)


def test_a_missing_config_is_named_and_so_is_a_picture_in_its_place(launch, tiny_run):
    with pytest.raises(SystemExit, match=r"there is no recipe .nowhere.py. of segmentation"):
        launch(train, "nowhere.py")
    picture = tiny_run / "images" / "training" / "a.jpg"
    with pytest.raises(
        SystemExit, match=r"train\.py: .*a\.jpg is not a config; one ends in \.json"
    ):
        launch(train, picture)


@pytest.mark.parametrize("script", ["train.py", "test.py"])
def test_the_scripts_are_thin(script, configs):
    text = (configs.parent / script).read_text()
    assert len(text.splitlines()) <= 25
    assert "eva_segmentation" in text
