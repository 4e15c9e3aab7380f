"""What a demo of segmentation says that it found."""

import numpy as np

from eva_report.demos import FILES_NAMED, FoundShares


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


def test_small_shares_many_classes_and_many_files_are_summed_up():
    found = FoundShares([f"class {number}" for number in range(300)])
    found.add("a", np.array([0] * 1000 + [1]))
    found.add("b", np.arange(12))
    first, second, _ = found.lines()
    assert first == "a: class 0 100 %, 1 more class"
    assert second.endswith("class 9 8 %, 2 more classes")
    for number in range(FILES_NAMED):
        found.add(f"{number}.jpg", np.array([2]))
    (line,) = found.lines()
    assert line.startswith("22 files: class 0 97 %")
