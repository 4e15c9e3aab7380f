"""Folders of classes: order, labels, what is left out, what is refused."""

import pytest

from eva_data.classes import read_class_list
from eva_data.labelled_images import ClassFolders


@pytest.fixture
def make(tmp_path, write_picture):
    """Function: pictures at paths; the folder."""

    def write(*paths, folder="data"):
        for number, path in enumerate(paths):
            write_picture(tmp_path / folder / path, number)
        return tmp_path / folder

    return write


def content(samples):
    """[(path in the folder, label)], in the order of the data set."""
    start = len(str(samples.folder)) + 1
    return [(samples.sample_id(i)[start:], samples.load(i)[1]) for i in range(len(samples))]


def test_labels_are_the_places_of_the_sorted_folders(make):
    samples = ClassFolders(
        make("b/1.png", "B/1.png", "a/2.png", "10/x.png", "9/x.png", "a/1.png"), upright=False
    )
    assert samples.classes == ("10", "9", "B", "a", "b")  # as Python sorts, capitals first
    assert content(samples) == [
        ("10/x.png", 0), ("9/x.png", 1), ("B/1.png", 2), ("a/1.png", 3), ("a/2.png", 3),
        ("b/1.png", 4),
    ]  # fmt: skip
    image, label = samples[4]  # without a transform the picture itself
    assert (image.mode, image.getpixel((0, 0)), label) == ("RGB", (2, 2, 2), 3)


# Classes that are given


def test_classes_give_the_order(make):
    folder = make("a/1.png", "b/1.png")
    samples = ClassFolders(folder, classes=["b", "other", "a"], upright=False)
    assert samples.classes == ("b", "other", "a")
    assert content(samples) == [("a/1.png", 2), ("b/1.png", 0)]


def test_a_class_of_other_letters_is_another_where_it_is_a_class_itself(make):
    samples = ClassFolders(
        make("cat/1.png", "Dog/1.png"), classes=["Cat", "cat", "dog"], upright=False
    )
    assert content(samples) == [("Dog/1.png", 2), ("cat/1.png", 1)]


def test_unknown_folders_are_refused(make):
    folder = make("a/1.png", "b/1.png", "x/1.png")
    message = "has 2 folders that are not among the 2 classes: b, x; expected a, c"
    with pytest.raises(ValueError, match=message):
        ClassFolders(folder, classes=["a", "c"], upright=False)
    with pytest.raises(ValueError, match="classes has a more than once"):
        ClassFolders(folder, classes=["a", "b", "x", "a"], upright=False)


def test_a_class_list(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_bytes("\n zebra \r\nkatze mit hut\n\n猫\n".encode())
    assert read_class_list(file) == ["zebra", "katze mit hut", "猫"]
    file.write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r"classes.txt"):
        read_class_list(file)
    file.write_text("\n \n")
    with pytest.raises(ValueError, match=r"classes.txt"):
        read_class_list(str(file))
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_class_list(tmp_path / "none.txt")
    file.write_text('id, name\n1, b\n0, "a, or A"\n')
    assert read_class_list(file) == ["a, or A", "b"]
    file.write_bytes(b"id,name\r0,a\r1,b\r")  # lines of an old Mac
    assert read_class_list(file) == ["a", "b"]
    file.write_text("id,name\n1,b\n1,a\n")
    with pytest.raises(ValueError, match=r"classes\.txt.*0"):
        read_class_list(file)
