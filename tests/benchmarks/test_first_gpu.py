"""The checks of `make first-gpu` select tests."""

import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def program(load_module):
    return load_module(TESTS / "gpu/first_gpu.py")


@pytest.mark.slow
def test_each_check_selects_tests(program):
    words = ["--collect-only", "-q", "--gpu-device=cpu", "tests/gpu"]
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=TESTS.parent, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert len(program.CHECKS) == 25
    for name, (file, tests) in program.CHECKS.items():
        here = [line.lower() for line in collected if f"{file}::" in line]
        chosen = [
            line
            for line in here
            if not tests
            or Expression.compile(tests).evaluate(lambda word, _=line, **__: word.lower() in _)
        ]
        assert chosen, name
