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
    ended = subprocess.run(
        [sys.executable, "-m", "eva_command", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {key: str(value) for key, value in trainer.variables.items()},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    shown = f"{ended.stdout}\n{ended.stderr}".lower().replace(str(tmp_path).lower(), "")
    assert not [line for line in shown.splitlines() if any(word in line for word in NOISE)], shown
