"""What a demo says that it found."""

from eva_report.demos import BEST_ASKED, FILES_NAMED, FoundObjects


def test_objects_of_each_file_and_in_total():
    found = FoundObjects(0.5)
    found.add("a.jpg", ["dog", "cat", "dog", "dog"])
    assert found.lines() == ["a.jpg: 3 dog, 1 cat"]
    found.add("b.jpg", [], best=0.494)
    found.add("film.mp4", ["cat"] * 1200, frames=300)
    assert found.lines() == [
        "a.jpg: 3 dog, 1 cat",
        "b.jpg: nothing at 0.5; the best score is 0.49",
        "film.mp4: 300 frames: 1,200 cat",
        "2 images and 1 video (300 frames): 1,204 objects: 1,201 cat, 3 dog",
    ]


def test_names_that_are_numbers_are_quoted():
    found = FoundObjects(0.5)
    found.add("a.jpg", ["7", "7", "0"])
    assert found.lines() == ['a.jpg: 2 "7", 1 "0"']


def test_nothing_at_all_names_the_option_that_helps():
    found = FoundObjects(0.5)
    assert found.lines() == []
    found.add("a.jpg", [], best=0.3)
    assert found.lines() == [
        "a.jpg: nothing at 0.5; the best score is 0.30: lower --score-threshold, with --overwrite"
    ]
    found.add("b.jpg", [], best=0.49)
    assert found.lines() == [
        "2 images: nothing at 0.5; the best score is 0.49: "
        "lower --score-threshold, with --overwrite"
    ]
    unknown = FoundObjects(0.25)
    unknown.add("a.jpg", [])
    assert unknown.lines() == ["a.jpg: nothing at 0.25"]


def test_many_files_and_classes_are_summed_up():
    found = FoundObjects(0.5)
    for number in range(FILES_NAMED + 1):
        found.add(f"{number}.jpg", [f"class {number % 12:02}"])
    (line,) = found.lines()
    assert line.startswith("21 images: 21 objects: 2 class 00, 2 class 01")
    assert line.endswith("1 class 09, 2 of 2 more classes")


def test_the_best_score_is_asked_for_while_nothing_is_found_and_not_for_ever():
    found = FoundObjects(0.5)
    for _ in range(BEST_ASKED):
        assert found.wants_best
        found.add("a", [], best=0.1)
    assert not found.wants_best
    found = FoundObjects(0.5)
    found.add("a", ["dog"])
    assert not found.wants_best


def test_names_that_are_not_text_are_escaped():
    found = FoundObjects(0.5)
    found.add("\udcff.jpg", ["dog"])
    assert found.lines() == ["\\udcff.jpg: 1 dog"]
