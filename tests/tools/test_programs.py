"""The programs of `tools`: short, and started from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
PROGRAMS = sorted(TOOLS.glob("*.py"))


def _run(folder, program, *arguments):
    """Start a program in another folder, with no path but those of the installed packages."""
    command = [sys.executable, str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_is_short_and_helps_in_any_folder(program, tmp_path):
    assert len(program.read_text().splitlines()) <= 25
    done = _run(tmp_path, program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    first = done.stdout.splitlines()[0]
    assert first.startswith("usage: ")
    assert program.name in first
    assert not list(tmp_path.iterdir())


def test_programs_alone_lie_here():
    """Beside them is one package; the folder itself is not a package."""
    assert len(PROGRAMS) == 10
    folders = [path.name for path in TOOLS.iterdir() if path.is_dir()]
    assert set(folders) - {"__pycache__", ".mypy_cache", ".ruff_cache"} == {"eva_demo"}
    assert not (TOOLS / "__init__.py").exists()


@pytest.mark.parametrize("command", ["coco", "images", "semantic", "video"])
def test_every_check_has_its_options(tmp_path, command):
    done = _run(tmp_path, TOOLS / "verify_data.py", command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--report" in done.stdout
    assert "--workers" in done.stdout


def test_a_check_that_does_not_exist_is_refused(tmp_path):
    done = _run(tmp_path, TOOLS / "verify_data.py", "cocos")
    assert done.returncode == 2
    assert "cocos is neither a check" in done.stderr


def test_demo_data_as_a_user_would(tmp_path):
    """Made and checked by the programs themselves; pictures decoded by two processes."""
    output = tmp_path / "demo"
    sizes = ("--size", 64, "--train", 4, "--val", 2, "--workers", 1)
    made = _run(tmp_path, TOOLS / "make_demo_data.py", "--output", output, *sizes)
    assert made.returncode == 0
    annotations = output / "coco" / "annotations" / "instances_train.json"
    files = ("--annotations", annotations, "--images", output / "coco" / "train")
    done = _run(tmp_path, TOOLS / "verify_data.py", "coco", "--workers", 2, *files)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 images" in done.stdout
    assert "note" not in done.stdout
    assert done.stdout.endswith("no problem\n")
