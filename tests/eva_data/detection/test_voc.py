"""Folders of Pascal VOC: coordinates, lists, difficult objects, and XML that is damaged."""

import pytest

from eva_data.detection.sources import open_source

CUT = "<annotation>\n<object>\n<name>cat</name>\n"


def test_the_first_pixel_is_one_and_the_last_belongs_to_the_box(voc, read):
    box = {"xmin": 5, "ymin": 3, "xmax": 10, "ymax": 6}
    found = read(voc([box, {"name": "a dog", "xmin": "1.0"}]))
    first, second = found.objects
    assert (first["category_id"], first["bbox"]) == (2, [4, 2, 6, 4])
    assert second["bbox"] == [0, 0, 40, 20]
    assert found.categories == {1: "a dog", 2: "cat"}


def test_difficult_objects_count_neither_way_in_scoring_alone(voc, read):
    root = voc([{"difficult": 1}, {}])
    assert [one["iscrowd"] for one in read(root).objects] == [0, 0]
    assert [one["iscrowd"] for one in read(root, scored=True).objects] == [1, 0]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({}, {"train": ["0.jpg", "1.jpg", "2.jpg"]}),
        ({"train": "1\n", "val": "0\r\n2\r\n"}, {"train": ["1.jpg"], "val": ["0.jpg", "2.jpg"]}),
        ({"trainval": "0\n1\n", "test": "2"}, {"train": ["0.jpg", "1.jpg"], "test": ["2.jpg"]}),
        ({"train": "0\n1\n", "test": "2"}, {"train": ["0.jpg", "1.jpg"], "test": ["2.jpg"]}),
        ({"train": "0", "val": "1", "test": "2"}, {"train": ["0.jpg"], "val": ["1.jpg"]}),
        ({"trainval": "0\n1\n", "val": "1"}, {"train": ["0.jpg"], "val": ["1.jpg"]}),
        ({"trainval": "0\n", "val": "0\n"}, {"val": ["0.jpg"]}),
    ],
)
def test_lists(lists, expected, voc):
    source = open_source(voc([{}], [{}], [{}], lists=lists))
    assert {part: list(one.names) for part, one in source.parts.items()} == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CUT, r"0\.xml: .*line 4"),
        ("<html/>", r"0\.xml: .*html"),
        ('<?xml version="1.0" encoding="x-none"?><annotation/>', r"0\.xml: "),
        ([{"name": " "}], r"0\.xml: object 1: "),
        ([{}, {"xmax": "abc"}], r"0\.xml: object 2: .* 'cat 0 1 1 abc 20'"),
        ([{"xmin": "nan"}], r"object 1: .*nan"),
        ([{"xmin": 9, "xmax": 3}], r"object 1: .* 9 1 3"),
        ([{"difficult": 7}], "object 1: .*'cat 7"),
        ("<annotation>\n<object><name>a</name></object></annotation>", "object 1: .*'a'"),
        ("<annotation/>", "voc"),
    ],
)
def test_a_damaged_file_is_named(content, message, voc):
    with pytest.raises(ValueError, match=message):
        open_source(voc(content))


def test_a_devkit_and_side_by_side(voc, tmp_path, read):
    root = voc([{}])
    kit = tmp_path / "kit"
    (kit / "VOCdevkit").mkdir(parents=True)
    root.rename(kit / "VOCdevkit/VOC2007")
    assert len(read(kit).images) == len(read(kit / "VOCdevkit").images) == 1
    (kit / "VOCdevkit/VOC2012/Annotations").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"VOC.*VOC2012"):
        open_source(kit)
