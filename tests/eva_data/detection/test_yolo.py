"""Sets of YOLO: boxes, outlines, every form of data.yaml, and what is damaged."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from eva_data.detection.datasets import EntryError
from eva_data.detection.sources import open_source
from eva_data.detection.yolo import read_label_file

BOX = "1 0.5 0.5 0.25 0.5"
OUTLINE = "0 0.1 0.1 0.9 0.1 0.9 0.9"


def names_of(dataset):
    return [one["file_name"] for one in dataset.images.values()]


def test_boxes_and_outlines_in_pixels(yolo, read):
    found = read(yolo(f"{BOX}\n{OUTLINE}\n"))
    box, outline = found.objects
    assert (box["image_id"], box["category_id"], box["bbox"]) == (1, 2, [15, 5, 10, 10])
    assert outline["bbox"] == [4, 2, 32, 16]
    assert outline["segmentation"] == [[4, 2, 36, 2, 36, 18]]
    assert found.categories == {1: "cat", 2: "dog"}
    assert found.images == {1: {"id": 1, "file_name": "0.jpg", "height": 20, "width": 40}}


def test_labels_of_images_that_are_not_read_are_told(yolo, save):
    root = yolo(BOX, BOX, BOX)
    assert not open_source(root).notes
    (root / "images/train/1.jpg").rename(root / "images/train/1.gif")
    for name in ("classes.txt", "README.dataset.txt", "._0.txt", "0.TXT"):
        (root / "labels/train" / name).write_text("cat" if name != "0.TXT" else BOX)
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: images/train\nval: images/train\n")
    (note,) = open_source(root).notes
    assert "1 label file has no image" in note
    assert "1.txt" in note
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: list.txt\n")
    (root / "list.txt").write_text("images/train/0.jpg\n")
    assert not open_source(root).notes  # the others may be of another part


@pytest.mark.parametrize(
    "line",
    [
        "1 0.5 0.5 0.2", "1 0.5 0.5 0.2 0.2 0.9", "2 0.5 0.5 0.2 0.2", "-1 0.5 0.5 0.2 0.2",
        "0.5 0.5 0.5 0.2 0.2", "cat 0.5 0.5 0.2 0.2", "nan 0.5 0.5 0.2 0.2", "1 0.5 nan 0.2 0.2",
        "1 0.5 inf 0.2 0.2", "1 0.5 0.5 20 0.2", "1 0.5 0.5 -0.2 0.2", "1_0 0.5 0.5 0.2 0.2",
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(line, yolo, read):
    root = yolo(f"{BOX}\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"labels/train/0\.txt.*3.*'{line}'"):
        read(root)


def test_pictures_without_labels_and_suffixes_in_capitals(yolo, read, save):
    root = yolo(BOX, b=None, c="")
    (root / "labels/train/0.txt").rename(root / "labels/train/0.TXT")
    save(root / "images/train/deeper/D.JPG")
    found = read(root)
    assert names_of(found) == ["0.jpg", "b.jpg", "c.jpg", "deeper/D.JPG"]
    assert [one["image_id"] for one in found.objects] == [1]


def test_a_turned_picture_has_the_size_that_is_seen(yolo, read, save):
    root = yolo(BOX)
    save(root / "images/train/0.jpg", orientation=6)
    found = read(root)
    assert (found.images[1]["width"], found.images[1]["height"]) == (20, 40)
    assert found.objects[0]["bbox"] == [7.5, 10, 5, 20]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [yes, 1.0]", ["yes", "1.0"]),
        ("names:\n  1: b\n  0: a:x", ["a:x", "b"]),
        ("\ufeffnames: ['Kätzchen: groß', \"☃\"]\r\nnc: 2\r\n", ["Kätzchen: groß", "☃"]),
        ("names: !!python/object/apply:os.system [x]", ["x"]),  # a list: nothing is run
    ],
)
def test_names_are_the_texts_that_were_written(names, expected, yolo):
    root = yolo(BOX, yaml=f"{names}\ntrain: images/train\n")
    assert list(open_source(root).classes) == expected


@pytest.mark.parametrize(
    "settings_of_places",
    [
        "path: .\ntrain: images/train",
        "path: /moved/away\ntrain: images/train",
        "train: ../images/train",
        "train: [images/train]",
        "train: ./list.txt",
    ],
)
def test_places_of_pictures(settings_of_places, yolo, read):
    root = yolo(BOX, yaml=f"names: [a, b]\n{settings_of_places}\n")
    (root / "list.txt").write_text("\ufeff./images/train/0.jpg\r\n\r\nimages/train/0.jpg\r\n")
    found = read(root / "data.yaml")
    assert names_of(found) == ["0.jpg"]
    assert len(found.objects) == 1


def test_a_file_without_a_path_gets_no_note_about_one(yolo, monkeypatch):
    root = yolo(BOX, yaml="names: [a, b]\ntrain: images/train\n")
    monkeypatch.chdir(root)
    assert not open_source(Path("..", root.name, "data.yaml")).notes


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text("0123456789.-+e naif\n\r\t", max_size=60)))
def test_any_content_is_labels_or_an_error(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / f"any_{os.getpid()}.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    problems: list[EntryError] = []
    for one in read_label_file(3, file, (20, 40), False, problems.append):
        assert 1 <= one["category_id"] <= 3
        assert all(0 <= value <= 40 for value in one["bbox"])
    assert all(error.location.startswith(str(file)) for error in problems)


@pytest.mark.parametrize("root", ["datasets", "../datasets", "."])
def test_a_path_is_where_ultralytics_looks(root, tmp_path, monkeypatch, save):
    """Below the working folder, or in `datasets` there or beside it; lists from there too."""
    here = tmp_path / "project"
    pictures = here / root / "coco" / "images" / "train2017"
    for name in ("a", "b"):
        save(pictures / f"{name}.jpg")
    labels = here / root / "coco" / "labels" / "train2017"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text(BOX)
    (here / root / "coco" / "train2017.txt").write_text("./images/train2017/a.jpg\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "coco.yaml").write_text(
        "path: coco\ntrain: [train2017.txt, images/train2017]\nval: train2017.txt\n"
        "test: test-dev2017.txt\nnames: {0: cat, 1: dog}\n"
    )
    monkeypatch.chdir(here)
    parts = open_source(tmp_path / "elsewhere" / "coco.yaml").parts
    assert {part: list(one.names) for part, one in parts.items()} == {
        "train": ["a.jpg", "b.jpg"],
        "val": ["a.jpg"],
    }
