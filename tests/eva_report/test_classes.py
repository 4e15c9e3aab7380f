"""Classes of images: their names in order, and what a demo says of them."""

import numpy as np

from eva_report.demos import FILES_NAMED, FoundClasses, Prediction, first_classes, scored


def test_the_first_classes_in_falling_order():
    found = first_classes(np.array([0.25, 0.5, 0.25], np.float32), "abc", 2)
    assert found == [Prediction("b", 0.5), Prediction("a", 0.25)]
    assert len(first_classes(np.array([1.0], np.float32), "a", 5)) == 1
    assert scored([Prediction("jump", 0.7), Prediction("7", 0.2)]) == 'jump 0.70, "7" 0.20'


def test_each_file_and_all_of_them():
    found = FoundClasses(0.5)
    assert found.lines() == []
    found.add("a.jpg", Prediction("cat", 0.934))
    assert found.lines() == ["a.jpg: cat 0.93"]
    found.add("b.jpg", Prediction("dog", 0.494))
    found.add("film.mp4", Prediction("cat", 0.8), frames=300)
    assert found.lines() == [
        "a.jpg: cat 0.93",
        "b.jpg: nothing at 0.5; the best score is 0.49 (dog)",
        "film.mp4: 300 frames: cat 0.80",
        "2 images and 1 video (300 frames): 2 cat, nothing in 1",
    ]


def test_nothing_at_all_names_the_option_that_helps():
    found = FoundClasses(0.5)
    found.add("a.jpg", Prediction("cat", 0.3))
    said = "nothing at 0.5; the best score is 0.30 (cat): lower --score-threshold, with --overwrite"
    assert found.lines() == [f"a.jpg: {said}"]
    found.add("b.jpg", Prediction("dog", 0.2))
    assert found.lines() == [f"2 images: {said}"]


def test_many_files_are_summed_up():
    found = FoundClasses(0.0)
    for number in range(FILES_NAMED + 1):
        found.add(f"\udcff{number}.jpg", Prediction(str(number % 2), 1.0))
    assert found.lines() == ['21 images: 11 "0", 10 "1"']
