"""What demos say that they found."""

import numpy as np

from eva_report.demos import (
    BEST_ASKED,
    Found,
    FoundShares,
    Prediction,
    first_classes,
    scored,
)


def test_objects_of_each_file_and_in_total():
    found = Found(0.5)
    found.add("a.jpg", ["dog", "cat", "dog", "dog"])
    assert found.lines() == ["a.jpg: 3 dog, 1 cat"]
    found.add("b.jpg", [], best=Prediction("", 0.494))
    found.add("film.mp4", ["cat"] * 1200, frames=300)
    assert found.lines() == [
        "a.jpg: 3 dog, 1 cat",
        "b.jpg: nothing at 0.5; the best score is 0.49",
        "film.mp4: 300 frames: 1,200 cat",
        "2 images and 1 video (300 frames): 1,204 objects: 1,201 cat, 3 dog",
    ]


def test_names_that_are_numbers_are_quoted_and_no_text_is_escaped():
    found = Found(0.5)
    found.add("\udcff.jpg", ["7", "7", "0"])
    assert found.lines() == ['\\udcff.jpg: 2 "7", 1 "0"']


def test_nothing_at_all_names_the_option_that_helps():
    found = Found(0.5)
    assert found.lines() == []
    found.add("a.jpg", [], best=Prediction("", 0.3))
    assert found.lines() == [
        "a.jpg: nothing at 0.5; the best score is 0.30: lower --score-threshold, with --overwrite"
    ]
    unknown = Found(0.25)
    unknown.add("a.jpg", [])
    assert unknown.lines() == ["a.jpg: nothing at 0.25"]


def test_the_best_score_is_asked_for_while_nothing_is_found_and_not_for_ever():
    found = Found(0.5)
    for _ in range(BEST_ASKED):
        assert found.wants_best
        found.add("a", [], best=Prediction("", 0.1))
    assert not found.wants_best
    found = Found(0.5)
    found.add("a", ["dog"])
    assert not found.wants_best


def test_the_first_classes_in_falling_order():
    found = first_classes(np.array([0.25, 0.5, 0.25], np.float32), "abc", 2)
    assert found == [Prediction("b", 0.5), Prediction("a", 0.25)]
    assert len(first_classes(np.array([1.0], np.float32), "a", 5)) == 1
    assert scored([Prediction("jump", 0.7), Prediction("7", 0.2)]) == 'jump 0.70, "7" 0.20'


def test_the_class_of_each_file_and_of_all():
    found = Found(0.5, objects=False)
    assert found.lines() == []
    found.add_first("a.jpg", Prediction("cat", 0.934))
    assert found.lines() == ["a.jpg: cat 0.93"]
    found.add_first("b.jpg", Prediction("dog", 0.494))
    found.add_first("film.mp4", Prediction("cat", 0.8), frames=300)
    assert found.lines() == [
        "a.jpg: cat 0.93",
        "b.jpg: nothing at 0.5; the best score is 0.49 (dog)",
        "film.mp4: 300 frames: cat 0.80",
        "2 images and 1 video (300 frames): 2 cat, nothing in 1",
    ]


def test_shares_of_each_file_and_in_total():
    found = FoundShares(["grass ", "brick", "digit"])
    assert found.lines() == []
    found.add("a.jpg", np.array([[0, 0, 0, 1]]))
    assert found.lines() == ["a.jpg: grass 75 %, brick 25 %"]
    for frame in ([[1, 1]], [[1, 0]]):
        found.add("film.mp4", np.array(frame))
    assert found.lines() == [
        "a.jpg: grass 75 %, brick 25 %",
        "film.mp4: brick 75 %, grass 25 %",
        "2 files: grass 50 %, brick 50 %",
    ]
