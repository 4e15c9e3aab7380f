"""`make first-gpu`: its checks select tests, and one file has their results."""

import json
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


FAILING = """
def test_passes(record_property):
    record_property("figure", "3 ms")
def test_fails():
    assert 1 == 2
"""


@pytest.fixture
def checks(program, tmp_path, monkeypatch):
    """Function: run three checks, one that passes, one that fails, one that ends its process."""
    (tmp_path / "conftest.py").write_text(
        'def pytest_addoption(parser): parser.addoption("--gpu-device")'
    )
    (tmp_path / "test_both.py").write_text(FAILING)
    (tmp_path / "test_ends.py").write_text("import os\ndef test_ends(): os._exit(7)")
    checks = {"passes": ("test_both.py", "passes"), "fails": ("test_both.py", "")}
    checks |= {"ends": ("test_ends.py", "")}
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(program, "CHECKS", checks)

    def run(*words):
        output = tmp_path / "results.json"
        assert program.main(["--output", str(output), "--device", "cpu", *words]) == 1
        return {check["name"]: check for check in json.loads(output.read_text())["checks"]}

    return run


@pytest.mark.slow
def test_results_of_all_checks_are_in_one_file(checks):
    results = checks()
    assert list(results) == ["passes", "fails", "ends"]
    assert results["passes"]["outcome"] == "passed"
    assert results["passes"]["figures"] == ["3 ms"]
    assert (results["fails"]["outcome"], results["fails"]["passed"]) == ("failed", 1)
    assert results["ends"]["outcome"] == "ended with 7"


@pytest.mark.parametrize(
    ("limit", "outcome"), [("--each", "too slow"), ("--minutes", "no time left")]
)
@pytest.mark.slow
def test_a_limit_of_time_leaves_the_file_complete(checks, limit, outcome):
    seconds = "0.001" if limit == "--each" else "0"
    assert {check["outcome"] for check in checks(limit, seconds).values()} == {outcome}
