"""Files of a run: complete or not there, the old ones go last, one run in a folder."""

import errno
import multiprocessing
import os
import runpy
import shutil
import sys
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.fileio import LocalBackend
from torch import nn

from eva_openmmlab.config.runs import checkpoints
from eva_openmmlab.training.checkpoint_files import read_checkpoint
from eva_runs.output_folder import locked
from eva_segmentation.evaluation import evaluate
from eva_segmentation.inference.predictor import Predictor
from eva_segmentation.model.segmentor import EVASegmentor
from eva_segmentation.training import train


@pytest.fixture
def started(tiny_run, launch, tmp_path):
    """Function: train in `run`, with options; the config keeps one checkpoint."""

    def run(*options, resume=False):
        kept = "default_hooks.checkpoint.max_keep_ckpts=1"
        arguments = ["--cfg-options", kept, *options, *(["--resume"] if resume else [])]
        launch(train, tiny_run / "tiny.py", "--work-dir", tmp_path / "run", *arguments)

    run.folder = tmp_path / "run"
    return run


class Killed(BaseException):
    """In place of a kill: nothing but `finally` runs after it."""


def names(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def test_a_checkpoint_is_there_before_the_older_one_goes(started, monkeypatch):
    """After every change of the folder there is a complete checkpoint, and it is the one named."""
    seen = []

    def watched(change):
        def look(*arguments):
            change(*arguments)
            tag = started.folder / "last_checkpoint"
            if tag.is_file():
                read_checkpoint(started.folder / Path(tag.read_text()).name)
                seen.append(names(started.folder))

        return look

    for name in ("replace", "remove"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    started()
    assert ["iter_1.pth", "iter_2.pth"] in seen
    assert names(started.folder) == ["best_mIoU_iter_3.pth", "iter_3.pth"]


@pytest.mark.parametrize("nth", [2, 4])
def test_a_write_that_is_cut_off_leaves_the_file_before(nth, started, monkeypatch):
    """The second is a numbered checkpoint, the fourth that of the best weights."""
    put, calls = LocalBackend.put, []

    def cut(self, content, path):
        calls.append(path)
        put(self, content[: len(content) // 2] if len(calls) == nth else content, path)
        if len(calls) == nth:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "put", cut)
        with pytest.raises(Killed):
            started()
    newest = f"iter_{nth - 1}.pth"
    assert names(started.folder) == [newest]
    read_checkpoint(started.folder / newest)
    started(resume=True)
    assert names(started.folder) == ["best_mIoU_iter_3.pth", "iter_3.pth"]


def test_what_a_kill_left_of_older_checkpoints_goes_with_the_next_start(started, monkeypatch):
    remove = os.remove

    def stopped(path):
        if str(path).endswith("iter_1.pth"):
            raise Killed
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "remove", stopped)
        with pytest.raises(Killed):
            started()
    assert names(started.folder) == ["iter_1.pth", "iter_2.pth"]
    started(resume=True)
    assert names(started.folder) == ["best_mIoU_iter_3.pth", "iter_3.pth"]


def test_a_full_disk_is_a_sentence_and_the_checkpoint_before_stays(started, monkeypatch):
    put = LocalBackend.put

    def full(self, content, path):
        if "iter_2" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, content, path)

    monkeypatch.setattr(LocalBackend, "put", full)
    message = r"^train\.py: \S*iter_2\.pth cannot be written: No space left on device$"
    with pytest.raises(SystemExit, match=message):
        started()
    assert names(started.folder) == ["iter_1.pth"]
    read_checkpoint(started.folder / "iter_1.pth")


def test_a_folder_that_is_deleted_or_a_file_is_a_sentence(started, monkeypatch):
    loss = EVASegmentor.loss

    def deleting(self, *arguments):
        shutil.rmtree(started.folder, ignore_errors=True)
        started.folder.write_text("a file")
        return loss(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EVASegmentor, "loss", deleting)
        with pytest.raises(
            SystemExit, match=r"^train\.py: \S*run/\S* cannot be written: Not a dir"
        ):
            started()
    with pytest.raises(SystemExit, match=r"^train\.py: \S*run is a file and not a folder"):
        started()


def hold(folder, ready, done):
    with locked(folder):
        ready.set()
        done.wait(60)


def test_two_runs_in_one_folder_are_refused(started, tiny_run):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(started.folder, ready, done))
    other.start()
    assert ready.wait(60)
    try:
        with pytest.raises(SystemExit, match=r"^train\.py: .* is in use by another run \(process"):
            started()
    finally:
        done.set()
        other.join(60)
    assert not names(started.folder)
    assert not (started.folder / "tiny.py").exists()  # of the other run


@pytest.mark.filterwarnings("ignore:The draw is False:UserWarning")
def test_mmsegmentations_own_script_does_not_write_over_a_run(
    tiny_run, tmp_path, monkeypatch, forget_runs
):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run / "run", folder)
    before = {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
    script = Path(mmseg.__path__[0]) / ".mim" / "tools" / "train.py"
    arguments = ["train.py", str(tiny_run / "tiny.py"), "--work-dir", str(folder)]
    monkeypatch.setattr(sys, "argv", arguments)
    precision = torch.get_float32_matmul_precision()
    try:
        with pytest.raises(ValueError, match=r"has a run .*: continue it with --resume"):
            runpy.run_path(str(script), run_name="__main__")
    finally:
        forget_runs()
        torch.set_float32_matmul_precision(precision)
    after = {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
    assert {name: after[name] for name in before} == before


def test_weights_that_a_file_replaces_are_not_drawn(tiny_run, launch, monkeypatch, tmp_path):
    run = tiny_run / "run"
    drawn, draw = [], nn.init.trunc_normal_
    monkeypatch.setattr(
        nn.init, "trunc_normal_", lambda *args, **kwargs: drawn.append(draw(*args, **kwargs))
    )
    Predictor.from_config(run / "tiny.py", weights=run / "iter_3.pth", device="cpu")
    launch(evaluate, run / "tiny.py", run / "iter_3.pth", "--work-dir", tmp_path / "test")
    shutil.copytree(run, tmp_path / "run")
    launch(train, run / "tiny.py", "--work-dir", tmp_path / "run", "--resume")
    assert not drawn
    assert checkpoints(tmp_path / "run")
    launch(train, run / "tiny.py", "--work-dir", tmp_path / "new")
    assert drawn
