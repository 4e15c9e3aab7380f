"""The tests that need a GPU stay out of `make test`, and skip where there is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipes():
    """Lines of the Makefile's verbs."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z-]+):.*\n\t(.*)", text, re.MULTILINE))


@pytest.fixture
def collect():
    """Function: run pytest on tests/gpu without a GPU; exit code and last line."""

    def run(*arguments, file=""):
        command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
        ended = subprocess.run(
            [*command, f"tests/gpu/{file}", *arguments],
            cwd=ROOT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return ended.returncode, ended.stdout

    return run


def test_make_test_leaves_them_out(recipes, collect):
    """By their marker, not for want of a GPU."""
    (selection,) = re.findall(r"-m '([^']+)'", recipes["test"])
    code, text = collect("--collect-only", "-m", selection)
    assert code == pytest.ExitCode.NO_TESTS_COLLECTED, text
    assert re.search(r"no tests collected \(\d+ deselected\)", text), text


def test_they_skip_without_a_gpu(recipes, collect):
    assert "-m gpu tests/gpu" in recipes["test-gpu"]
    code, text = collect("-m", "gpu", file="test_loading_and_tf32.py")
    assert code == pytest.ExitCode.OK, text
    assert re.search(r"\n\d+ skipped in", text), text
