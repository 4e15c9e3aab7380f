"""A training says what concerns its user: warnings of libraries about themselves are left out."""

import os
import subprocess
import sys

import pytest

NOISE = (
    "meshgrid",
    "torch.fx",
    "deepspeed",
    "torchao",
    "_pytree",
    "userwarning",
    "futurewarning",
    "deprecat",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", ["detection", "mmdetection", "segmentation", "classification", "clip"]
)
def test_a_training_shows_no_warnings_of_libraries(task, trainers, tmp_path):
    """By an interpreter of its own, since that of the tests has imported the libraries before."""
    trainer = trainers(task)
    words = trainer.command(tmp_path / "out", steps=2, period=2)[1:]
    require_quiet(words, tmp_path, trainer.variables)


@pytest.mark.slow
def test_processes_of_a_batch_show_none_either(finished, demo, tmp_path):
    images = demo("coco") / "coco/val"
    words = ["batch", "detect", images, "--weights", finished("detection"), "--limit", 2]
    require_quiet([*words, "--output", tmp_path / "out", "--device", "cpu"], tmp_path, {})


def require_quiet(words, folder, variables):
    ended = subprocess.run(
        [sys.executable, "-m", "eva_command", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=folder,
        env=os.environ | {key: str(value) for key, value in variables.items()},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    shown = f"{ended.stdout}\n{ended.stderr}".lower().replace(str(folder).lower(), "")
    assert not [line for line in shown.splitlines() if any(word in line for word in NOISE)], shown
