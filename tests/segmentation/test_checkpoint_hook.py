"""Files of a run: complete or not there, the old ones go last, one run in a folder."""

import errno
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch

from eva_openmmlab.hooks import CompleteFiles
from eva_runs.output_folder import locked
from eva_segmentation.model.segmentor import EVASegmentor
from eva_segmentation.training import train


@pytest.fixture
def command(tiny_run, tmp_path):
    """A training in `run` that keeps one checkpoint."""
    kept = "default_hooks.checkpoint.max_keep_ckpts=1"
    return [train, tiny_run / "tiny.py", "--work-dir", tmp_path / "run", kept]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


class Killed(BaseException):
    """In place of a kill: nothing but `finally` runs after it."""


def names(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def read(file):
    return torch.load(file, weights_only=False)  # written by these tests


def test_a_checkpoint_is_there_before_the_older_one_goes(command, folder, launch, monkeypatch):
    """After every change of the folder there is a complete checkpoint, and it is the one named."""
    seen = []

    def watched(change):
        def look(*arguments, **options):
            change(*arguments, **options)
            tag = folder / "last_checkpoint"
            if tag.is_file():
                read(folder / Path(tag.read_text()).name)
                seen.append(names(folder))

        return look

    for name in ("replace", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    launch(*command)
    assert ["iter_1.pth", "iter_2.pth"] in seen
    assert names(folder) == ["best_mIoU_iter_3.pth", "iter_3.pth"]


@pytest.mark.parametrize("nth", [2, 4])
def test_a_write_that_is_cut_off_leaves_the_file_before(nth, command, folder, launch, monkeypatch):
    """The second is a numbered checkpoint, the fourth that of the best weights."""
    write, calls = Path.write_bytes, []

    def cut(self, content):
        calls.extend([self] if self.suffix == ".pth" else [])
        cut_off = self.suffix == ".pth" and len(calls) == nth
        write(self, content[: len(content) // 2] if cut_off else content)
        if cut_off:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", cut)
        with pytest.raises(Killed):
            launch(*command)
    newest = f"iter_{nth - 1}.pth"
    assert names(folder) == [newest]
    read(folder / newest)
    launch(*command, "--resume")
    assert names(folder) == ["best_mIoU_iter_3.pth", "iter_3.pth"]


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(
    command, folder, fails, monkeypatch
):
    put = CompleteFiles.put

    def full(self, content, path):
        if "iter_2" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        put(self, content, path)

    monkeypatch.setattr(CompleteFiles, "put", full)
    line = fails(*command)
    assert "iter_2.pth" in line
    assert "No space left" in line
    assert names(folder) == ["iter_1.pth"]
    read(folder / "iter_1.pth")


def test_a_folder_that_is_deleted_or_a_file_is_one_line(command, folder, fails, monkeypatch):
    loss = EVASegmentor.loss

    def deleting(self, *arguments):
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("a file")
        return loss(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EVASegmentor, "loss", deleting)
        assert "Not a dir" in fails(*command)
    assert "is a file and not a folder" in fails(*command)


def hold(folder, ready, done):
    with locked(folder):
        ready.set()
        done.wait(60)


def test_two_runs_in_one_folder_are_refused(command, folder, fails):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(folder, ready, done))
    other.start()
    assert ready.wait(60)
    try:
        assert "is in use by another run" in fails(*command)
    finally:
        done.set()
        other.join(60)
    assert not names(folder)
    assert not (folder / "tiny.py").exists()  # of the other run
