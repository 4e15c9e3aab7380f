import contextlib
import os
import re
import signal
import subprocess
import sys

import pytest

from eva_runs.output_folder import FolderInUseError, clean_if_refused, lock_folder
from eva_runs.run_logs import RunLogs

_HOLDER = """
import pathlib, sys, time
from eva_runs.output_folder import lock_folder
with lock_folder(pathlib.Path(sys.argv[1]), **{word: True for word in sys.argv[2:] if word ==
"shared"}):
    if sys.argv[2:] == ["with a worker"]:
        import multiprocessing
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held(folder, *more):
    """Another process has the folder; it and its children end with the context."""
    command = [sys.executable, "-c", _HOLDER, str(folder), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_second_run_is_refused_and_told_which_is_the_first(tmp_path):
    with held(tmp_path / "run") as process, pytest.raises(FolderInUseError) as refused:
        lock_folder(tmp_path / "run").__enter__()
    assert re.search(rf"run is in use .*process {process.pid} on ", str(refused.value))
    with lock_folder(tmp_path / "run"):
        pass


def test_runs_that_share_a_folder_keep_others_out(tmp_path):
    with held(tmp_path, "shared"):
        (tmp_path / ".part.writing-1.parquet").touch()
        with lock_folder(tmp_path, shared=True), pytest.raises(FolderInUseError):
            lock_folder(tmp_path).__enter__()
        assert (tmp_path / ".part.writing-1.parquet").exists()


def test_a_killed_run_frees_its_folder_although_its_workers_live(tmp_path):
    with held(tmp_path, "with a worker") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with lock_folder(tmp_path):
            pass


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path):
    parts = [
        ".model.writing-12.pth",
        "best/adapter/.m.writing-1.pth",
        "inference/.c.writing-2.json",
    ]
    for part in parts:
        (tmp_path / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part).write_text("half")
    (tmp_path / "model.pth").write_text("complete")
    with lock_folder(tmp_path):
        files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
        assert files == [".lock", "model.pth"]


def start(folder, error, *, begun=False):
    clean = clean_if_refused(folder, ["log*.txt", "data"], begun=lambda: begun)
    with contextlib.suppress(type(error)), clean, lock_folder(folder):
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
    with held(tmp_path / "run"):
        clean = clean_if_refused(tmp_path / "run", ["*"], begun=lambda: False)
        with contextlib.suppress(FolderInUseError), clean, lock_folder(tmp_path / "run"):
            pytest.fail("it is not refused")
        assert (tmp_path / "run/.lock").exists()


def test_logs_go_on_where_the_checkpoint_was(tmp_path):
    log, other = tmp_path / "a/metrics.json", tmp_path / "b/metrics.json"
    logs = RunLogs(tmp_path, "*/metrics.json")

    def write(file, content):
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as stream:
            stream.write(content)

    write(log, "1 2 3")
    noted = logs.sizes()
    write(log, " scores")
    logs.note_evaluation(3, logs.sizes())
    write(log, " 4")
    write(other, "of another start")
    assert logs.is_evaluated(3)
    logs.cut(3, noted)
    assert (log.read_text(), other.read_text()) == ("1 2 3 scores", "")
    logs.cut(2, {"a/metrics.json": 3})
    assert log.read_text() == "1 2"
    assert not logs.is_evaluated(2)
    assert not logs.is_evaluated(3)  # which the run does again
    logs.cut(0, {})
    assert log.read_text() == ""
    assert not logs.is_evaluated(3)
