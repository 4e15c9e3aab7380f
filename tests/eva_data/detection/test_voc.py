"""Folders of Pascal VOC: coordinates, lists, difficult objects, and XML that is damaged."""

import pytest

from eva_data.detection.spec import open_source

CUT = "<annotation>\n<object>\n<name>cat</name>\n"


def test_the_first_pixel_is_one_and_the_last_belongs_to_the_box(voc, read):
    box = {"xmin": 5, "ymin": 3, "xmax": 10, "ymax": 6}
    found = read(voc([box, {"name": "a dog", "xmin": "1.0"}]))
    first, second = found.annotations
    assert first == {"id": 1, "image_id": 1, "category_id": 2, "bbox": [4, 2, 6, 4]}
    assert second["bbox"] == [0, 0, 40, 20]
    assert found.categories == [{"id": 1, "name": "a dog"}, {"id": 2, "name": "cat"}]


def test_difficult_objects_count_neither_way_in_scoring_alone(voc, read):
    root = voc([{"difficult": 1}, {}])
    assert ["iscrowd" in one for one in read(root).annotations] == [False, False]
    assert [one.get("iscrowd") for one in read(root, scored=True).annotations] == [1, None]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({}, {"train": ["0.jpg", "1.jpg", "2.jpg"]}),
        ({"train": "1\n", "val": "0\r\n2\r\n"}, {"train": ["1.jpg"], "val": ["0.jpg", "2.jpg"]}),
        ({"trainval": "\ufeff0\n1\n"}, {"train": ["0.jpg", "1.jpg"]}),
        ({"trainval": "0\n1\n", "test": "2"}, {"train": ["0.jpg", "1.jpg"], "val": ["2.jpg"]}),
        ({"trainval": "0\n1\n", "val": "1"}, {"train": ["0.jpg"], "val": ["1.jpg"]}),
        ({"train": "0 1\n1 -1\n2.jpg\n"}, {"train": ["0.jpg", "1.jpg", "2.jpg"]}),
    ],
)
def test_lists(lists, expected, voc):
    source = open_source(voc([{}], [{}], [{}], lists=lists))
    assert {part: list(one.names) for part, one in source.parts.items()} == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CUT, r"0\.xml is not XML that can be read: .*line 4"),
        ("", r"0\.xml is not XML that can be read"),
        ("<html/>", r"0\.xml begins with <html>"),
        ('<?xml version="1.0" encoding="x-none"?><annotation/>', r"0\.xml is not XML"),
        ('<?xml version="1.0" encoding="gbk"?><annotation/>', r"0\.xml is not XML"),
        ([{"name": " "}], r"0\.xml: object 1 has no name"),
        ([{}, {"xmax": "abc"}], r"0\.xml: object 2 \('cat'\) has xmax 'abc'"),
        ([{"xmin": "nan"}], "has xmin 'nan', not a finite number"),
        ([{"xmin": 9, "xmax": 3}], "has xmin 9 and xmax 3"),
        ([{"difficult": 7}], "has difficult '7'"),
        ("<annotation>\n<object><name>a</name></object></annotation>", r"\('a'\) has no bndbox"),
        ("<annotation/>", "none of its 1 files has an object"),
    ],
)
def test_a_damaged_file_is_named(content, message, voc):
    with pytest.raises(ValueError, match=message):
        open_source(voc(content))


def test_a_size_that_is_not_the_picture_s(voc, read, save):
    with pytest.raises(ValueError, match=r"0\.xml: its size is 99 x 20 px; .* 40 x 20 px upright"):
        read(voc([{}], size=(99, 20)))
    root = voc([{}])
    save(root / "JPEGImages/0.jpg", orientation=6)
    with pytest.raises(ValueError, match="as it is stored, before its EXIF orientation"):
        read(root)
    assert len(read(voc([{}], size=(0, 0))).annotations) == 1  # some programs write zeros


def test_pictures_by_name_or_as_the_file_names_them(voc, read):
    root = voc([{}], [{}])
    (root / "JPEGImages/0.jpg").rename(root / "JPEGImages/0.PNG")
    (root / "Annotations/1.xml").rename(root / "Annotations/b.xml")
    assert [image["file_name"] for image in read(root).images] == ["0.PNG", "1.jpg"]
    (root / "JPEGImages/1.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 images .*JPEGImages/1\.jpg \(.*b\.xml\)"):
        read(root)


def test_a_listed_file_that_is_not_there(voc):
    with pytest.raises(ValueError, match=r"7\.xml cannot be read: No such file"):
        open_source(voc([{}], lists={"train": "0\n7\n"}))


def test_nothing_is_left_to_train_on(voc):
    with pytest.raises(ValueError, match=r"trainval\.txt: all of its images are evaluated on"):
        open_source(voc([{}], lists={"trainval": "0\n", "val": "0\n"}))


def test_two_files_of_one_picture(voc):
    root = voc([{}], [{}])
    for name in ("0", "1"):
        (root / f"JPEGImages/{name}.jpg").rename(root / f"JPEGImages/0{name}.png")
        file = root / f"Annotations/{name}.xml"
        file.write_text(file.read_text().replace(f"{name}.jpg", "00.png"))
    with pytest.raises(ValueError, match=r"0\.xml and .*1\.xml are both of .*00\.png"):
        open_source(root)


def test_a_check_goes_on_behind_a_damaged_file(voc):
    problems = []
    source = open_source(voc(CUT, [{}], "<a/>"), report=problems.append)
    assert list(source.parts["train"].names) == ["1.jpg"]
    assert [text[text.index(".xml") - 1 :][:5] for text in problems] == ["0.xml", "2.xml"]


def test_a_devkit_and_side_by_side(voc, tmp_path, read):
    root = voc([{}])
    kit = tmp_path / "kit"
    (kit / "VOCdevkit").mkdir(parents=True)
    root.rename(kit / "VOCdevkit/VOC2007")
    assert len(read(kit).images) == len(read(kit / "VOCdevkit").images) == 1
    (kit / "VOCdevkit/VOC2012/Annotations").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"several VOC datasets: name one of .*VOC2012"):
        open_source(kit)
    export = tmp_path / "export"
    for part in ("train", "valid"):
        (export / part).mkdir(parents=True)
        for name in ("Annotations/0.xml", "JPEGImages/0.jpg"):
            file = kit / "VOCdevkit/VOC2007" / name
            (export / part / file.name).write_bytes(file.read_bytes())
    assert {*open_source(export).parts} == {"train", "val"}
