"""Folders that nobody named: a run does not meet an earlier one; a resumed run finds its own."""

import subprocess
import sys
import time

import pytest

from eva_runs import output_folder
from eva_runs.output_folder import claim_number, number_folder


def test_a_folder_with_a_run_gets_a_number_unless_it_is_resumed(tmp_path):
    def choose(resume):
        return number_folder(tmp_path / "run", lambda folder: any(folder.glob("*")), resume=resume)

    assert choose(resume=False) == choose(resume=True) == tmp_path / "run"
    for name in ("run", "run-2"):
        (tmp_path / name / "step_1").mkdir(parents=True)
    assert choose(resume=False).name == "run-3"
    assert choose(resume=True).name == "run-2"
    for name in ("run-4", "run-2026", "run-02", "run-x"):  # and run-3 was deleted
        (tmp_path / name / "step_1").mkdir(parents=True)
    assert choose(resume=False).name == "run-5"
    assert choose(resume=True).name == "run-4"
    (tmp_path / "run.onnx").touch()
    file = number_folder(tmp_path / "run", lambda path: path.is_file(), suffix=".onnx")
    assert file.name == "run-2.onnx"


def test_numbers_end_at_999(tmp_path):
    for name in ("run-999", "run-1000"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="run-999"):
        claim_number(tmp_path / "run")


CHOOSE = """
import argparse, os, signal, sys, time
from pathlib import Path
from eva_runs.options import require_export
from eva_runs.output_folder import evaluation_folder

begin, refused = float(sys.argv[1]), sys.argv[2:]
time.sleep(max(0, begin - time.time()))
folder = evaluation_folder(Path("output/run"), "run")
options = argparse.Namespace(output=None, form=None, weights="run", overwrite=False)
require_export(options)
print(folder, options.output, flush=True)
if refused == ["killed"]:
    os.kill(os.getpid(), signal.SIGKILL)
if not refused:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text("begun")
    options.output.write_text("a model")
"""


def test_commands_that_begin_at_once_choose_other_outputs(tmp_path):
    begin, commands = str(time.time() + 1.5), []
    for _ in range(4):
        words = [sys.executable, "-c", CHOOSE, begin]
        commands.append(subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True))
    pairs = [command.communicate()[0].split() for command in commands]
    folders, files = zip(*pairs, strict=True)
    assert len({*folders}) == len({*files}) == 4


def test_a_file_that_is_written_after_its_name_was_chosen_is_another_commands(
    tmp_path, monkeypatch
):
    (tmp_path / "run.onnx").touch()
    names = iter(["run.onnx", "run-2.onnx"])
    monkeypatch.setattr(output_folder, "number_folder", lambda *_, **__: tmp_path / next(names))
    assert claim_number(tmp_path / "run", suffix=".onnx").name == "run-2.onnx"
    assert [*tmp_path.glob(".run.*")] == []


def test_a_killed_command_leaves_no_file_that_looks_like_a_result(tmp_path):
    words = [sys.executable, "-c", CHOOSE, "0"]
    assert subprocess.run([*words, "killed"], cwd=tmp_path, check=False).returncode == -9
    assert not [*tmp_path.rglob("*.onnx")]
    run = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert run.stdout.split()[1] == "output/run-2.onnx"


def test_a_refused_command_leaves_no_output(tmp_path):
    words = [sys.executable, "-c", CHOOSE, "0", "refused"]
    assert subprocess.run(words, cwd=tmp_path, check=True).returncode == 0
    assert not [*tmp_path.iterdir()]
