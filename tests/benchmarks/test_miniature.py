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
             "commit": "a"}
        )
        for seed in range(5)
        for arm, more in (("features", 1.0), ("scratch", 0.0), ("tokens", 0.9 * (-1) ** seed))
    ]  # fmt: skip
    found = table.tables(lines)
    assert "| trees, AP | **+1.0 (+1.0 to +1.0)** |" in found
    assert "20.0 ± 15.8" in found
    low, high = table.interval(np.array([1.0, 1.9, 0.1, 1.9, 0.1]))
    assert low < 1 < high


def test_a_difference_of_some_seeds_counts_only_where_students_interval_leaves_0_out(table):
    """The bootstrap of differences of one sign always does; four seeds are not compared."""
    differences = [0.1, 0.1, 0.1, 0.1, 3.0]
    lines = [
        json.dumps(
            {"arm": arm, "seed": seed, "job": "trees", "scores": {"AP": score},
             "commit": "a"}
        )
        for seed, one in enumerate(differences)
        for arm, score in (("features", one), ("scratch", 0.0), ("pixels", 0.0))
        if (arm, seed) != ("pixels", 4)
    ]  # fmt: skip
    assert "| trees, AP | +0.7 (+0.1 to +1.8) |  |" in table.tables(lines)
