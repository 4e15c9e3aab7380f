"""What a run says at its evaluations and at its end."""

import json

import pytest

from eva_detection.training import announcements

NAN = float("nan")
RESULTS = {
    "bbox": {"AP": 41.24, "AP50": 60.0, "APl": NAN, "AP-cat": 30.0},
    "segm": {"AP": 39.0, "AP50": None, "APl": 1.0, "AP-cat": 30.0},
}


def test_scores_are_a_table_without_single_classes():
    lines = announcements.score_lines(RESULTS).splitlines()
    assert [line.split() for line in lines] == [
        ["AP", "AP50", "APl"],
        ["box", "41.2", "60.0", "-"],
        ["mask", "39.0", "-", "1.0"],
    ]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("results", [{"bbox": {"AP": NAN}}, {"bbox": {"AP": None, "APl": None}}])
def test_nothing_found(results):
    assert announcements.score_lines(results).startswith("no scores: nothing was found")


def test_an_evaluation_in_one_line():
    line = announcements.evaluation_line(5000, RESULTS | {"own": {"accuracy": 3.0}, "count": 4})
    assert line == "iteration 5,000: box AP 41.2, mask AP 39.0"
    line = announcements.evaluation_line(50, {"bbox": {"AP": NAN}, "segm": {"AP": None}})
    assert line == "iteration 50: no scores, since nothing was found"


@pytest.mark.parametrize(("period", "steps"), [(5000, 90_000), (1, 7), (1, 100_000), (50, 600)])
def test_a_dozen_evaluations_are_said(period, steps):
    every = period * announcements.spread(period, steps)
    assert 6 <= steps // every <= announcements.MOST_EVALUATIONS


def test_saved_results(tmp_path):
    assert announcements.saved_results(tmp_path) == {}
    (tmp_path / "results.json").write_text(json.dumps({"bbox": {"AP": None}}))
    assert announcements.saved_results(tmp_path) == {"bbox": {"AP": None}}
    (tmp_path / "results.json").write_text("[1]")
    assert announcements.saved_results(tmp_path) == {}


def test_a_recipe_of_the_toolkit_has_a_name(repository):
    recipe = repository / "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
    name = announcements.recipe_name(str(recipe))
    assert name == "demo/cascade_mask_rcnn_vitdet_eva_debug"
    assert announcements.recipe_name("my/run/config.yaml") == "my/run/config.yaml"
