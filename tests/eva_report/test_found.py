"""What demos say that they found."""

import numpy as np

from eva_report.demos import (
    DetectionSummary,
    Prediction,
    ShareSummary,
)


def test_the_class_of_each_file_and_of_all():
    found = DetectionSummary(0.5, objects=False)
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
    found = ShareSummary(["grass ", "brick", "digit"])
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
