"""The README's first commands, to the end: minutes on two cores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_debug_config_learns_the_digit_scenes(tmp_path, configs):
    def run(script, *arguments):
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=2400,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    config = configs / "demo" / "mask2former_eva_debug.py"
    work, data = tmp_path / "run", ("--data-root", tmp_path / "scenes" / "semantic")
    run("tools/make_demo_data.py", "--formats", "semantic", "--output", tmp_path / "scenes")
    run("segmentation/train.py", config, "--work-dir", work, *data)
    run("segmentation/test.py", config, work / "iter_250.pth", "--work-dir", work / "test", *data)
    (file,) = (work / "test").glob("*/*.json")
    assert json.loads(file.read_text())["mIoU"] >= 55  # 66 was measured, see the README
