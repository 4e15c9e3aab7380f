"""The command lines: training, continuing, mmsegmentation's own tools, refusals."""

import argparse
import multiprocessing
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from eva_openmmlab import config as configuration
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
    configuration.set_data_root(cfg, folder)
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.test_cfg.update(crop_size=(64, 64), stride=(32, 32))
    for loader in configuration.LOADERS:
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


def test_evaluation_refuses_weights_without_a_head_or_for_other_classes(config, fails, tmp_path):
    assert "not a segmentor" in fails(evaluate, config, "eva_debug", "--work-dir", tmp_path)
    model = Config.fromfile(config).model
    model.decode_head.num_classes = 7
    torch.save({"state_dict": MODELS.build(model).state_dict()}, tmp_path / "seven.pth")
    line = fails(evaluate, config, tmp_path / "seven.pth", "--work-dir", tmp_path)
    assert "decode_head.cls_embed.weight (8, 64)" in line


def test_a_run_begins_from_a_file_with_the_arguments_of_an_official_program(
    tiny_run, launch, scalars, tmp_path
):
    state = torch.load(tiny_run / "run" / "iter_1.pth", weights_only=False)["state_dict"]
    trunk = {
        name.removeprefix("backbone.net."): value
        for name, value in state.items()
        if name.startswith("backbone.net.")
    }
    arguments = argparse.Namespace(lr=1.0)
    torch.save({"model": trunk, "args": arguments, "epoch": 3}, tmp_path / "official.pt")
    start = ("--load-from", tmp_path / "official.pt", "train_cfg.max_iters=1")
    launch(train, tiny_run / "tiny.py", "--work-dir", tmp_path / "run", *start)
    assert "loaded" in (tmp_path / "run" / "log.txt").read_text()


def test_weights_that_do_not_fit_leave_no_folder(tiny_run, fails, tmp_path):
    state = torch.load(tiny_run / "run" / "iter_1.pth", weights_only=False)["state_dict"]
    shallow = {name: value for name, value in state.items() if ".blocks.1." not in name}
    torch.save(shallow, tmp_path / "shallow.pth")
    command = [train, tiny_run / "tiny.py", "--work-dir", tmp_path / "two"]
    assert "backbone.net.blocks.1." in fails(*command, "--load-from", tmp_path / "shallow.pth")
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--load-from", "eva_debugg"], "eva_debug"),
        (["--load-from", "nowhere.pth"], "nowhere.pth"),
        (["--data-root", "nowhere"], "nowhere"),
        (["train_cfg.max_iter=3"], "max_iter"),
        (["optim_wraper.optimizer.lr=1"], "optim_wraper"),
        (["param_scheduler.1.power=1"], "param_scheduler.1"),
        (["model.decode_head.num_classes=3"], "num_classes"),
        (["optim_wrapper.accumulative_counts=2"], "accumulative_counts=2"),
        (["model.backbone.patch_size=0"], "patch_size"),
        (["train_dataloader.dataset.data_prefix.img_path=x"], "x"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_leaves_no_folder(
    words, named, tiny_run, fails, tmp_path
):
    line = fails(train, tiny_run / "tiny.py", "--work-dir", tmp_path / "run", *words)
    assert line.startswith("train.py: ")
    assert named in line
    assert not (tmp_path / "run").exists()


def test_what_a_registry_does_not_know_is_one_line(tiny_run, fails, tmp_path):
    command = [train, tiny_run / "tiny.py", "--work-dir", tmp_path / "run"]
    assert "Nope" in fails(*command, "model.type=Nope")


def test_a_missing_config_is_named_and_so_is_an_image_in_its_place(fails, tiny_run):
    assert "nowhere.py" in fails(train, "nowhere.py")
    assert "a.jpg" in fails(train, tiny_run / "images" / "training" / "a.jpg")


def fault(*_):
    raise RuntimeError("a fault of\nthe program")


@pytest.mark.parametrize(("program", "method"), [(train, "loss"), (evaluate, "predict")])
def test_a_fault_is_one_line_with_its_traceback_in_a_file_and_leaves_no_worker(
    program, method, tiny_run, fails, monkeypatch, tmp_path
):
    monkeypatch.setattr(EVASegmentor, method, fault)
    weights = [] if program is train else [tiny_run / "run" / "iter_3.pth"]
    workers = "train_dataloader.num_workers=1"
    line = fails(program, tiny_run / "tiny.py", *weights, "--work-dir", tmp_path, workers)
    log = tmp_path / "log_rank0.txt"
    assert "a fault of the program" in line
    assert str(log) in line
    assert "in fault" in log.read_text()
    assert not multiprocessing.active_children()
