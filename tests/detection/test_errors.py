"""How a run begins and ends: its folder, its evaluations, a full disk, Ctrl-C, other processes."""

import errno
import gc
import json
import os
import re
import subprocess
import time
import warnings
from pathlib import Path

import pytest
import torch

from eva_detection.evaluation.test_set import EvaluationSet
from eva_detection.training import train as train_module
from eva_detection.training.output_folder import read_metrics


@pytest.fixture
def full_disk(monkeypatch):
    """Function: from now on there is no space for files of a kind, by default checkpoints."""
    real = os.fsync

    def fill(suffix=".pth"):
        def fail(descriptor):
            if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == suffix:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fail)

    return fill


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_intact(
    run_here, tmp_path, full_disk, monkeypatch
):
    run = tmp_path / "run"
    step = train_module.DetectionTrainer.run_step

    def filling(trainer):
        if trainer.iter == 2:
            full_disk()
        step(trainer)

    monkeypatch.setattr(train_module.DetectionTrainer, "run_step", filling)
    sentence = run_here(run, "train.max_iter=5", "train.checkpointer.period=1")
    failed = re.search(r"model_000000(\d).pth cannot be written: No space left on", sentence)
    last = int(failed[1]) - 1
    assert last in (0, 1), "the one before was still being written"
    assert (run / "last_checkpoint").read_text() == f"model_{last:07}.pth"
    assert torch.load(run / f"model_{last:07}.pth", weights_only=True)["iteration"] == last
    names = sorted(path.name for path in run.glob("*model*"))
    assert names == [f"model_{number:07}.pth" for number in range(last + 1)]


def test_a_full_disk_is_named_by_the_log_of_metrics(run_here, tmp_path, full_disk):
    full_disk(".json")
    sentence = run_here(tmp_path / "run", "train.max_iter=2")
    assert "metrics.json cannot be written" in sentence
    with warnings.catch_warnings(action="ignore"):  # detectron2 leaves the file open
        gc.collect()


def test_scores_between_two_lines_are_written_once(run_here, tmp_path, monkeypatch):
    scores = iter(range(100))
    found = lambda *_, **__: {"bbox": {"AP": float(next(scores))}}  # noqa: E731
    monkeypatch.setattr(EvaluationSet, "score", found)
    words = ("train.max_iter=5", "train.eval_period=2", "train.log_period=3")
    assert run_here(tmp_path / "run", *words) == 0
    lines = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["iteration"] for entry in entries] == [1, 2, 3, 4, 5]
    assert ["bbox/AP" in entry for entry in entries] == [True, False, True, False, True]


def test_a_bug_is_one_line_and_a_traceback_in_the_log(run_here, tmp_path, monkeypatch):
    monkeypatch.setattr(train_module.DetectionTrainer, "run_step", lambda trainer: {}["x"])
    sentence = run_here(tmp_path / "run", "train.max_iter=2")
    log = tmp_path / "run" / "log.txt"
    assert sentence.startswith("train_net.py: unexpected KeyError")
    assert str(log) in sentence
    assert "Traceback (most recent call last)" in log.read_text()


class CutOffError(Exception):
    """Stands in for a kill."""


@pytest.mark.slow
def test_an_evaluation_that_was_cut_off_is_made_up_for(run_here, tmp_path, monkeypatch):
    """And a torn line does not swallow the next; the last one is logged where it belongs."""
    run, scores = tmp_path / "run", iter(range(100))
    cut = [True]

    def evaluate(test_set, model, **_):
        if cut and len(read_metrics(run)) == 2:
            cut.pop()
            raise CutOffError
        return {"bbox": {"AP": float(next(scores))}}

    monkeypatch.setattr(EvaluationSet, "score", evaluate)
    words = ("train.checkpointer.period=2", "train.eval_period=2", "train.max_iter=4")
    assert "CutOffError" in run_here(run, *words)
    assert (run / "last_checkpoint").read_text() == "model_0000001.pth"
    with (run / "metrics.json").open("a") as file:
        file.write('{"iteration": 1, "total_l')
    assert run_here(run, "--resume", *words) == 0
    lines = (run / "metrics.json").read_text().splitlines()
    assert not any("total_l'" in line or line.count("iteration") > 1 for line in lines)
    found = {entry["iteration"]: entry.get("bbox/AP") for entry in read_metrics(run)}
    assert found == {0: None, 1: 0.0, 2: None, 3: None, 4: 1.0}
    assert all("total_loss" in entry for entry in read_metrics(run)[:4])

    # it has ended: what a kill cut off is its last evaluation
    assert run_here(run, "--resume", *words) == 0
    assert {entry["iteration"] for entry in read_metrics(run)} == {0, 1, 2, 3, 4}


# Two processes; the second one meets a bug outside of a step. Its workers must end as well.
# A signal in an evaluation, to the complete group, as batch systems send it.
SIGNAL = """
import os, signal
from eva_detection import command_line
from eva_detection.training import train, trainer
from detectron2.modeling import GeneralizedRCNN

inference = GeneralizedRCNN.inference
seen = []

def with_signal(self, batch, *more, **options):
    seen.append(1)
    if len(seen) == 2:
        os.killpg(os.getpgid(0), signal.SIGTERM)
    return inference(self, batch, *more, **options)

GeneralizedRCNN.inference = with_signal
if __name__ == "__main__":
    command_line.train()
"""


@pytest.fixture
def start_script(start, repository, tiny_overrides, tmp_path):
    """Function: start a stand-in for train_net.py on the tiny recipe."""
    recipe = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"

    def start_program(text, *arguments):
        script = tmp_path / "program.py"
        script.write_text(text)
        flags = [text for text in arguments if "=" not in text]
        values = [text for text in arguments if "=" in text]
        command = (str(script), "--config-file", str(repository / recipe), *flags)
        return start(*command, *tiny_overrides, f"train.output_dir={tmp_path / 'run'}", *values)

    return start_program


def _left_of(process):
    """Processes of its group that do not end."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        left = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False)
        if not left.stdout:
            return []
        time.sleep(0.1)
    return left.stdout.split()


@pytest.mark.slow
def test_a_signal_in_an_evaluation_with_workers(start_script, tmp_path):
    words = ("train.max_iter=6", "train.eval_period=2", "dataloader.test.num_workers=1")
    running = start_script(SIGNAL, *words)
    ended = running.wait(180)
    assert ended.code == 75, ended.text[-3000:]
    assert "killed by signal" not in ended.text
    run = tmp_path / "run"
    saved = torch.load(run / "model_stopped.pth", weights_only=True)
    assert saved["iteration"] == 2, "the step after the evaluation"
    assert read_metrics(run)[1]["bbox/AP"] is not None
    assert _left_of(running.process) == []
