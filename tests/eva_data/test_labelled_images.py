"""Folders of classes: order, labels, what is left out, what is refused."""

import os

import numpy as np
import pytest

from eva_data.classes import read_class_list
from eva_data.labelled_images import ClassFolders, open_labelled


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


def test_the_extensions_of_torchvision_in_any_case(make):
    names = [f"a/{k}.{end}" for k, end in enumerate(
        ("JPG", "jpeg", "PnG", "ppm", "bmp", "pgm", "tif", "TIFF", "webp"))]  # fmt: skip
    assert content(ClassFolders(make(*names, "a/x.gif", "a/x.png.txt"), upright=False)) == [
        (n, 0) for n in names
    ]


# Classes that are given


def test_classes_give_the_order(make, caplog):
    folder = make("a/1.png", "b/1.png")
    samples = ClassFolders(folder, classes=["b", "other", "a"], upright=False)
    assert samples.classes == ("b", "other", "a")
    assert content(samples) == [("a/1.png", 2), ("b/1.png", 0)]
    assert f"{folder} has no folder of 1 classes: other" in caplog.text


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
    with pytest.raises(ValueError, match=r"classes.txt has a more than once"):
        read_class_list(file)
    file.write_text("\n \n")
    with pytest.raises(ValueError, match=r"classes.txt is empty"):
        read_class_list(str(file))
    with pytest.raises(ValueError, match=r"none\.txt"):
        read_class_list(tmp_path / "none.txt")
    file.write_text('id, name\n1, b\n0, "a, or A"\n')
    assert read_class_list(file) == ["a, or A", "b"]
    file.write_text("id,name\n1,b\n1,a\n")
    with pytest.raises(ValueError, match=r"classes\.txt .* id 0"):
        read_class_list(file)


def test_open_labelled_takes_folders_of_any_name(make, monkeypatch):
    folder = make("a/1.png", folder="hf:imagenet")  # a colon makes no name of a data set
    assert open_labelled(str(folder), np.asarray, upright=False)[0][0].shape == (9, 10, 3)
    monkeypatch.chdir(make("b/1.png", folder="here"))
    assert open_labelled(".", None, upright=False).classes == ("b",)
    assert open_labelled(folder, None, classes=["z", "a"], upright=False)[0][1] == 1


# Errors


def test_no_folder_and_no_class_folders(make, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "none", tmp_path / "file", make("1.png", "2.png")):
        with pytest.raises(ValueError, match=f"{folder} has no class folders: .* such as "):
            open_labelled(folder, None, upright=False)


def test_no_image(make):
    with pytest.raises(ValueError, match="class folders without a file of bmp, jpeg"):
        ClassFolders(make("a/1.txt"), upright=False)


def test_pipes_and_loops_add_no_image(make, caplog):
    folder = make("a/1.png", "b/1.png")
    os.mkfifo(folder / "a" / "pipe.png")
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "loop").symlink_to(folder)
    (folder / "itself").symlink_to("itself")
    (folder / "b" / "up").symlink_to("..")
    samples = ClassFolders(folder, upright=False)
    assert samples.classes == ("a", "b")
    ids = [samples.sample_id(index).removeprefix(f"{folder}/") for index in range(len(samples))]
    assert ids == ["a/1.png", "b/1.png"]
    assert "loop links to a folder above: it is not a class" in caplog.text
