"""The tables of docs/miniature.md are those of the results."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def table(benchmark):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(benchmark("bench").__file__.replace("bench.py", "miniature"))
        yield benchmark("table")


def test_the_page_is_drawn_from_the_results(table):
    lines = table.RESULTS.read_text().splitlines() if table.RESULTS.exists() else []
    text = table.PAGE.read_text()
    assert table.page(text, lines) == text


def test_differences_are_paired(table):
    """Seeds that differ much, and arms that differ by one point in each: 1.0, without doubt."""
    lines = [
        json.dumps(
            {"arm": arm, "seed": seed, "job": "trees", "scores": {"AP": 10.0 * seed + more},
             "core_seconds": 1, "commit": "a"}
        )
        for seed in range(5)
        for arm, more in (("features", 1.0), ("scratch", 0.0), ("tokens", 0.9 * (-1) ** seed))
    ]  # fmt: skip
    found = table.tables(lines)
    assert "| trees, AP | **+1.0 (+1.0 to +1.0)** |" in found
    assert "20.0 ± 15.8" in found
    low, high = table.interval(np.array([1.0, 1.9, 0.1, 1.9, 0.1]))
    assert low < 1 < high


def test_trials_are_not_results(table):
    line = {"arm": "features", "seed": 0, "job": "maps 1e-3", "scores": {"val": 5.0}}
    assert table.tables([json.dumps(line | {"core_seconds": 1, "commit": "a"})]) == (
        "No run is finished.\n"
    )
