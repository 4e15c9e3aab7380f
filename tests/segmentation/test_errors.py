"""How the programs end: a sentence for a setting, a file for a traceback, no worker left."""

import multiprocessing
import os
import subprocess
import sys

import pytest
from mmengine.config import Config

from eva_openmmlab.training.errors import one_line
from eva_openmmlab.training.loops import EVATrainLoop
from eva_segmentation.model.segmentor import EVASegmentor
from eva_segmentation.training import train


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("train_cfg.val_interval=0", "val_interval must be a positive integer, got 0"),
        ("train_cfg.max_iters=2.5", "max_iters must be a positive integer, got 2.5"),
        ("train_dataloader.timeout=abc", r"cannot be built \(TypeError: .*log_rank0\.txt \["),
        (
            "optim_wrapper.optimizer.betas=b",
            r"TypeError: .* \[optim_wrapper\.optimizer\.betas=b\]",
        ),
        ("optim_wrapper.optimizer.lr=abc", "lr must be a number that is not negative, got 'abc'$"),
        ("optim_wrapper.type=ApexOptimWrapper", "must be OptimWrapper or AmpOptimWrapper, got Ap"),
        ("optim_wrapper.accumulative_counts=2", "interval=1 must be a multiple of .*_counts=2"),
        ("model.decode_head.num_classes=3", "num_classes is 3 and the training data have 5"),
        ("model.backbone.patch_size=0", "patch_size must be at least 1 pixel, got 0"),
        ("model.type=Nope", "Nope is not in the mmseg::model registry"),
        ("default_hooks.checkpoint.out_dir=/dev/null/x", "cannot be written: Not a directory"),
        ("default_hooks.checkpoint.max_keep_ckpts=abc", "cannot be built"),
        ("env_cfg.matmul_precision=abc", "matmul_precision='abc' must be of"),
        ("randomness.seed=abc", "cannot be built"),
        ("val_dataloader=None", "val_dataloader, val_cfg, and val_evaluator should be"),
    ],
)
def test_a_setting_that_cannot_work_is_one_sentence(option, message, tiny_run, launch, tmp_path):
    options = ("--work-dir", tmp_path, "--cfg-options", option)
    with pytest.raises(SystemExit, match=message) as stop:
        launch(train, tiny_run / "tiny.py", *options)
    text = str(stop.value)
    assert text.startswith("train.py: ")
    assert len(text.splitlines()) == 1
    has_begun = "out_dir" in option  # which is first written to after a step
    assert has_begun or not list(tmp_path.iterdir()) or (tmp_path / "log_rank0.txt").exists()


def fail(*_):
    raise ValueError("a fault of\nthe program")


def test_a_fault_is_one_sentence_with_its_traceback_in_a_file(
    tiny_run, launch, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(EVASegmentor, "loss", fail)
    hooks = []

    def remembered(*arguments):
        try:
            train.main(*arguments)
        finally:
            hooks.append(sys.excepthook)

    program = type("program", (), {"main": staticmethod(remembered)})
    with pytest.raises(ValueError, match="a fault") as error:
        launch(program, tiny_run / "tiny.py", "--work-dir", tmp_path)
    capsys.readouterr()
    hooks[0](ValueError, error.value, error.tb)
    (line,) = capsys.readouterr().err.splitlines()
    log = tmp_path / "log_rank0.txt"
    assert line == (
        f"train.py: ended by an error (ValueError: a fault of the program); its traceback is in "
        f"{log}"
    )
    assert "in fail" in log.read_text()


def test_an_error_leaves_no_worker(tiny_run, launch, monkeypatch, tmp_path):
    monkeypatch.setattr(EVASegmentor, "loss", fail)
    workers = "train_dataloader.num_workers=2"
    with pytest.raises(ValueError, match="a fault"):
        launch(train, tiny_run / "tiny.py", "--work-dir", tmp_path, "--cfg-options", workers)
    assert not multiprocessing.active_children()


def test_the_sentence_of_an_error_in_a_worker():
    text = (
        "Caught LabelMapError in DataLoader worker process 0.\nOriginal Traceback (most recent "
        "call last):\n  File x\neva_segmentation.data.label_maps.LabelMapError: a.png: too odd"
    )
    assert one_line(ValueError(text)) == "a.png: too odd"


FAULTY = """
import eva_segmentation.plugin
from mmengine.dist import get_rank
from eva_segmentation.model.segmentor import EVASegmentor
loss = EVASegmentor.loss
def spoilt(*arguments):
    losses = loss(*arguments)
    if get_rank() == 1:
        if {fault!r} == "error":
            raise RuntimeError("a fault of process 1")
        losses = {{name: value * float("nan") for name, value in losses.items()}}
    return losses
EVASegmentor.loss = spoilt
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error", "nan"])
def test_what_one_of_two_processes_meets_ends_both(fault, tiny_run, configs, tmp_path):
    """With a real interpreter, and with workers, which ignore the signals of a launcher."""
    (tmp_path / "faulty.py").write_text(FAULTY.format(fault=fault))
    cfg = Config.fromfile(tiny_run / "tiny.py")
    cfg.custom_imports.imports.append("faulty")
    cfg.train_dataloader.update(num_workers=1, persistent_workers=True)
    assert cfg.train_cfg.type == EVATrainLoop.__name__
    cfg.dump(tmp_path / "two.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    script = [configs.parent / "train.py", tmp_path / "two.py", "--work-dir", tmp_path / "run"]
    run = subprocess.run(
        [*command, "--standalone", *map(str, script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"},
    )
    assert run.returncode == 1
    assert "terminate called" not in run.stderr  # gloo may abort a process that ends as a member
    ours = [line for line in run.stderr.splitlines() if line.startswith("train.py: ")]
    if fault == "error":
        assert (
            "RuntimeError: a fault of process 1" in (tmp_path / "run" / "log_rank1.txt").read_text()
        )
        assert any("a fault of process 1" in line and "log_rank1.txt" in line for line in ours)
    else:
        (line,) = ours
        assert "became infinite or NaN at iteration 1" in line
        assert "images of process 1: " in line
    assert not list((tmp_path / "run").glob("*.pth"))
