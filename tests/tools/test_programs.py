"""The programs of `tools`: started from any folder."""

from pathlib import Path

import pytest

OF_OTHERS = ("cvat_function", "label_studio_backend", "documentation")  # loaded by other programs
FILES = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))
PROGRAMS = [file for file in FILES if file.stem not in OF_OTHERS]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_helps_in_any_folder(run_started, program, tmp_path):
    done = run_started(str(program), "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {program.name} ")
    assert not list(tmp_path.iterdir())
