import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eva_runs.output_folder import (
    FolderInUseError,
    RunSentences,
    claimed,
    clean_if_refused,
    locked,
)
from eva_runs.record import STARTS

_HOLDER = """
import pathlib, sys, time
from eva_runs.output_folder import locked
with locked(pathlib.Path(sys.argv[1])):
    if len(sys.argv) > 2:
        import multiprocessing
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
    print("held", flush=True)
    time.sleep(60)
"""


def _hold(folder, *more):
    command = [sys.executable, "-c", _HOLDER, str(folder), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    return process


def _end(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_and_told_which_is_the_first(tmp_path):
    process = _hold(tmp_path / "run")
    try:
        with pytest.raises(FolderInUseError, match=rf"run is in use .*process {process.pid} on "):
            locked(tmp_path / "run").__enter__()
    finally:
        _end(process)
    with locked(tmp_path / "run"):
        pass


def test_a_killed_run_frees_its_folder_although_its_workers_live(tmp_path):
    process = _hold(tmp_path, "with a worker")
    try:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with locked(tmp_path):
            pass
    finally:
        _end(process)


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path):
    (tmp_path / ".model.writing-12.pth").write_text("half")
    (tmp_path / "model.pth").write_text("complete")
    with locked(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "model.pth"]


def start(folder, error, *, begun=False):
    clean = clean_if_refused(folder, ["log*.txt", "data"], begun=lambda: begun)
    with contextlib.suppress(type(error)), clean, locked(folder):
        (folder / "log.txt").write_text("a line")
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data/train.json").touch()
        raise error


def test_a_refused_run_leaves_what_was_there(tmp_path):
    start(tmp_path / "above/run", ValueError())
    assert not (tmp_path / "above").exists()
    (tmp_path / "run/data").mkdir(parents=True)
    (tmp_path / "run/weights.pth").touch()
    start(tmp_path / "run", OSError())
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "data", "run", "train.json", "weights.pth"
    ]  # fmt: skip


def test_a_run_that_has_begun_and_a_bug_leave_their_log(tmp_path):
    start(tmp_path / "begun", ValueError(), begun=True)
    start(tmp_path / "bug", KeyError())
    assert (tmp_path / "begun/log.txt").exists()
    assert (tmp_path / "bug/log.txt").exists()


def test_a_run_that_is_refused_for_another_one_touches_nothing(tmp_path):
    process = _hold(tmp_path / "run")
    try:
        clean = clean_if_refused(tmp_path / "run", ["*"], begun=lambda: False)
        with contextlib.suppress(FolderInUseError), clean, locked(tmp_path / "run"):
            pytest.fail("it is not refused")
        assert (tmp_path / "run/.lock").exists()
    finally:
        _end(process)


def test_refused_training_leaves_nothing(tmp_path):
    folder = tmp_path / "run"

    def refuse():
        raise ValueError("another run")

    with (
        pytest.raises(ValueError, match="another run"),
        claimed(folder, "training", traces=["log.txt"], begun="metrics.json", check=refuse),
    ):
        pytest.fail("it was not refused")
    assert not folder.exists()


def test_claimed_folder_records_its_start(tmp_path):
    with claimed(tmp_path, "evaluation", traces=[], begun="results.json"):
        assert (tmp_path / STARTS).exists()


def test_what_is_said_of_a_run():
    says = RunSentences(unit="iteration", resume="--resume", output="--work-dir")
    saved = says.saved("iter_9.pth", done=9)
    assert saved.startswith("iteration 9 is saved (iter_9.pth), and the same command with --resume")
    assert "begins at iteration 1" in says.saved("")
    assert says.stopped("SIGTERM", saved) == f"stopped by SIGTERM: {saved}"
    used = says.used(Path("output/run"), checkpoint="iter_9.pth")
    assert all(part in used for part in ("output/run", "iter_9.pth", "--resume", "--work-dir"))
    said = says.not_finite("The loss", 1500, "these images: a.jpg")
    assert all(part in said for part in ("The loss", "iteration 1,500", "a.jpg"))
