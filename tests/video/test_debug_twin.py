"""The README's first commands: motions are distinguished in clips, and not in single frames."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eva_engine.commands.training import load_recipe
from eva_video.config import VideoConfig

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "video" / "configs"


def test_the_comparison_differs_in_the_frames_only():
    clips, single = (
        load_recipe(CONFIGS / f"eva_debug_motion{name}.py", VideoConfig)
        for name in ("", "_single_frame")
    )
    assert (clips.model.frames > 1, single.model.frames) == (True, 1)
    assert clips.augment == single.augment
    assert clips.augment.flip == 0  # it would turn left into right
    assert (clips.data, clips.optimizer) == (single.data, single.optimizer)
    assert (clips.run.epochs, clips.run.batch_size) == (single.run.epochs, single.run.batch_size)
    assert clips.run.output != single.run.output


@pytest.mark.slow
def test_motions_are_learned_from_clips_and_not_from_single_frames(tmp_path):
    def run(script, *arguments):
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=3600,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def best(folder):
        lines = (tmp_path / "output" / folder / "metrics.jsonl").read_text().splitlines()
        return max(line["val_top1"] for line in map(json.loads, lines) if "val_top1" in line)

    data = ("--output", "output/datasets/digit_motion", "--formats", "video")
    run("tools/make_demo_data.py", *data, "--train", 4000, "--val", 400)
    run("video/train.py", CONFIGS / "eva_debug_motion.py")
    run("video/train.py", CONFIGS / "eva_debug_motion_single_frame.py")
    assert best("video_debug") >= 90
    assert best("video_debug_single_frame") < 40  # chance is 12.5
