"""Sets of YOLO: boxes, outlines, every form of data.yaml, and the sentence for what is damaged."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_data.detection.spec import open_source
from eva_data.detection.yolo import read_label_file

BOX = "1 0.5 0.5 0.25 0.5"
OUTLINE = "0 0.1 0.1 0.9 0.1 0.9 0.9"


def test_boxes_and_outlines_in_pixels(yolo, read):
    found = read(yolo(f"{BOX}\n{OUTLINE}\n"))
    box, outline = found.annotations
    assert box == {"id": 1, "image_id": 1, "category_id": 2, "bbox": [15, 5, 10, 10]}
    assert outline["bbox"] == [4, 2, 32, 16]
    assert outline["segmentation"] == [[4, 2, 36, 2, 36, 18]]
    assert found.categories == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert found.images == [{"id": 1, "file_name": "0.jpg", "height": 20, "width": 40}]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf1 0.5 0.5 0.25 0.5",
        b"1 0.5 0.5 0.25 0.5\r\n\r\n",
        b"1.0\t0.5  0.5 2.5e-1 0.5 \n",
        b"1 0.5 0.5 0.25 0.5\r",
    ],
)
def test_spellings_of_a_line(content, yolo, read):
    (box,) = read(yolo(content)).annotations
    assert box["category_id"] == 2
    assert box["bbox"] == [15, 5, 10, 10]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.2", r"3 numbers follow the class; a box has 4"),
        ("1 0.5 0.5 0.2 0.2 0.9", "5 numbers follow the class"),
        ("2 0.5 0.5 0.2 0.2", "the class is 2; .*0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "the class is -1"),
        ("0.5 0.5 0.5 0.2 0.2", "the class is 0.5"),
        ("cat 0.5 0.5 0.2 0.2", "'cat' is not a finite number"),
        ("1 0.5 nan 0.2 0.2", "'nan' is not a finite number"),
        ("1 0.5 inf 0.2 0.2", "'inf' is not a finite number"),
        ("1 0.5 0.5 20 0.2", "20 is outside of 0 to 1: values are fractions"),
        ("1 0.5 0.5 -0.2 0.2", "-0.2 is outside of 0 to 1"),
        ("1,0.5,0.5,0.2,0.2", ".* is not a finite number"),
        ("1_0 0.5 0.5 0.2 0.2", "'1_0' is not a finite number"),
    ],
)
def test_a_damaged_line_is_named(line, message, yolo, read):
    root = yolo(f"{BOX}\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"labels/train/0\.txt, line 3: {message}"):
        read(root)


def test_other_bytes_are_named(yolo, read):
    with pytest.raises(ValueError, match=r"0\.txt is not text in UTF-8"):
        read(yolo(b"\xff\xfe1\x00"))


def test_values_beyond_by_rounding_are_cut(yolo, read):
    (box,) = read(yolo("0 0.9 0.5 0.2002 1.0004")).annotations
    x, y, width, height = box["bbox"]
    assert (x + width, y, height) == (40, 0, 20)


def test_pictures_without_labels_and_suffixes_in_capitals(yolo, read, save):
    root = yolo(BOX, b=None, c="")
    (root / "labels/train/0.txt").rename(root / "labels/train/0.TXT")
    save(root / "images/train/deeper/D.JPG")
    found = read(root)
    names = [image["file_name"] for image in found.images]
    assert names == ["0.jpg", "b.jpg", "c.jpg", "deeper/D.JPG"]
    assert [one["image_id"] for one in found.annotations] == [1]


def test_a_turned_picture_has_the_size_that_is_seen(yolo, read, save):
    root = yolo(BOX)
    save(root / "images/train/0.jpg", orientation=6)
    found = read(root)
    assert (found.images[0]["width"], found.images[0]["height"]) == (20, 40)
    assert found.annotations[0]["bbox"] == [7.5, 10, 5, 20]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [yes, 1.0]", ["yes", "1.0"]),
        ("names:\n  1: b\n  0: a:x", ["a:x", "b"]),
        ("names: ['Kätzchen: groß', \"☃\"]\nnc: 2", ["Kätzchen: groß", "☃"]),
        ("\ufeffnames: [a, b]\r\nnc: 2\r\n", ["a", "b"]),
    ],
)
def test_names_are_the_texts_that_were_written(names, expected, yolo):
    root = yolo(BOX, yaml=f"{names}\ntrain: images/train\n")
    assert list(open_source(root).classes) == expected


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [a, b]\nnc: 3\ntrain: images/train", "has nc: '3' and 2 names"),
        ("names: [a, a]\ntrain: images/train", "the name of class 1 is 'a', as class 0 has"),
        ("names: [a, '']\ntrain: images/train", "the name of class 1 is not a text"),
        ("names: {0: a, 2: b}\ntrain: images/train", "names has the keys .*0 to 1"),
        ("train: images/train", "needs names"),
        ("names: [a]", "has neither train nor val"),
        ("names: [a]\ntrain: images/none", "train is 'images/none', and there is no"),
        ("names: [a]\ntrain: ~no-such-user/a", "train is '~no-such-user/a', and there is no"),
        ("names: [a]\ntrain: labels", r"which holds no image \(bmp"),
        ("names: [a]\ntrain: data.yaml", "neither a folder of images nor a list"),
        ("names: [a]\ntrain: {a: b}", "it must name a folder or a list"),
        ("names: [a]\ntrain: images/train\nkpt_shape: [17, 3]", "labels are of keypoints"),
        ("names: [a", "is not YAML"),
        ("- a", "must have keys and values"),
        ("names: !!python/object/apply:os.system [x]\ntrain: images/train", None),
        ("{" * 5000, "is not YAML"),
    ],
)
def test_a_damaged_description_is_named(yaml, message, yolo):
    root = yolo(BOX, yaml=yaml)
    if message is None:
        assert list(open_source(root).classes) == ["x"]  # a list like any other: nothing is run
        return
    with pytest.raises(ValueError, match=message) as caught:
        open_source(root)
    assert str(root / "data.yaml") in str(caught.value)


@pytest.mark.parametrize(
    "settings_of_places",
    [
        "train: images/train",
        "path: .\ntrain: images/train",
        "path: ../yolo\ntrain: images/train/",
        "path: /moved/away\ntrain: images/train",
        "train: ../images/train",
        "train: [images/train]",
        "train: list.txt",
        "train: ./list.txt",
    ],
)
def test_places_of_pictures(settings_of_places, yolo, read):
    root = yolo(BOX, yaml=f"names: [a, b]\n{settings_of_places}\n")
    (root / "list.txt").write_text("\ufeff./images/train/0.jpg\r\n\r\nimages/train/0.jpg\r\n")
    found = read(root / "data.yaml")
    assert [image["file_name"] for image in found.images] == ["0.jpg"]
    assert len(found.annotations) == 1


def test_names_of_pictures_do_not_depend_on_other_pictures(yolo):
    root = yolo(None, **{"a/b": BOX})
    both = open_source(root).parts["train"]
    (root / "images/train/0.jpg").unlink()
    alone = open_source(root).parts["train"]
    assert (both.folder, both.names) == (alone.folder, ["0.jpg", "a/b.jpg"])
    assert alone.names == ["a/b.jpg"]


def test_a_picture_that_a_list_names_and_is_not_there(yolo, read):
    root = yolo(BOX, yaml="names: [a, b]\ntrain: list.txt\n")
    (root / "list.txt").write_text("images/train/0.jpg\nimages/train/1.jpg\n")
    with pytest.raises(ValueError, match=r"1 of 2 images .*1\.jpg \(.*list\.txt, line 2\)"):
        read(root)
    (root / "list.txt").write_text("images/train/0.txt\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 1: .* is not the name of an image"):
        read(root)


def test_a_set_without_any_labels_says_where_they_would_be(yolo):
    with pytest.raises(ValueError, match=r"none of its images .*yolo/labels/train/0\.txt"):
        open_source(yolo(None))


def test_a_damaged_picture_is_left_out_and_many_are_refused(yolo, read):
    root = yolo(*[BOX] * 12)
    (root / "images/train/3.jpg").write_bytes(b"not a picture")
    found = read(root)
    assert len(found.images) == len(found.annotations) == 11
    assert "3.jpg" in found.unreadable[0]
    for number in range(11):
        (root / f"images/train/{number}.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"11 of 12 images .*; up to 10 are left out"):
        read(root)


def test_the_order_is_that_of_the_names_also_of_a_list(yolo, read):
    root = yolo(BOX, BOX, yaml="names: [a, b]\ntrain: list.txt\n")
    (root / "list.txt").write_text("images/train/1.jpg\nimages/train/0.jpg\n")
    assert [image["file_name"] for image in read(root).images] == ["0.jpg", "1.jpg"]


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text("0123456789.-+e naif\n\r\t", max_size=60)))
def test_any_content_is_labels_or_a_sentence(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / f"any_{os.getpid()}.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    problems = []
    for one in read_label_file(3, file, (20, 40), False, problems.append):
        assert 1 <= one["category_id"] <= 3
        assert all(0 <= value <= 40 for value in one["bbox"])
    assert all(text.startswith(str(file)) for text in problems)


def test_a_pipe_is_not_a_file_of_labels(tmp_path):
    os.mkfifo(tmp_path / "1.txt")
    problems, pipe = [], tmp_path / "1.txt"
    assert list(read_label_file(1, pipe, (9, 9), False, problems.append)) == []
    assert problems == [f"{pipe} is a named pipe and not a file"]


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


def test_a_list_of_names_below_the_working_folder(tmp_path, monkeypatch, yolo, read):
    root = yolo(BOX)
    (root / "lists").mkdir()
    (root / "lists" / "train.txt").write_text("yolo/images/train/0.jpg\n")
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: lists/train.txt\n")
    monkeypatch.chdir(tmp_path)
    assert len(read(root).annotations) == 1


def test_parts_are_not_taken_from_two_copies_of_a_set(tmp_path, save):
    """Which may be divided in other ways: a picture would be trained on and evaluated on."""
    (tmp_path / "data.yaml").write_text(
        "names: [cat]\npath: newer\ntrain: images/train\nval: images/val\n"
    )
    for place in ("newer/images/train", "images/train", "images/val"):
        save(tmp_path / place / "a.jpg")
        labels = tmp_path / place.replace("images", "labels")
        labels.mkdir(parents=True)
        (labels / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with pytest.raises(ValueError, match=r"val is 'images/val', and there is no .*newer/images/"):
        open_source(tmp_path / "data.yaml")
