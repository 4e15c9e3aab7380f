"""The script that compiles mmcv's operators, with stand-ins for the compiler and Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_mmcv_ops.sh"


@pytest.mark.parametrize(("jobs", "expected"), [(None, range(1, 9)), ("3", [3])])
def test_as_many_jobs_as_the_memory_has_room_for(tmp_path, jobs, expected):
    """A machine of 64 cores would run out of it."""
    programs = {
        "bin/getconf": "echo 64",
        "bin/c++": "",
        ".venv/bin/python": "echo $MAX_JOBS > jobs",
    }
    for name, line in programs.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)
    (tmp_path / "constraints.txt").write_text("onedl-mmcv==1\n")
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    variables = {k: v for k, v in os.environ.items() if k != "MAX_JOBS"}
    variables |= {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "CUDA_HOME": "none"}
    variables |= {"MAX_JOBS": jobs} if jobs else {}
    subprocess.run(["bash", tmp_path / "scripts" / SCRIPT.name], env=variables, check=True)
    assert int((tmp_path / "jobs").read_text()) in expected
