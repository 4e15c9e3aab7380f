"""The check of COCO files: every kind of finding by hand, and what cleaning leaves."""

import copy
import json
import math
import os
import random

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from eva_data.detection.coco import read_coco

WIDTH, HEIGHT = 40, 30
POLYGON = [2, 3, 12, 3, 12, 11, 2, 11]


def _counts(report):
    return {finding["kind"]: finding["count"] for finding in report["findings"]}


def _rle(counts):
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def _save(file, size=(WIDTH, HEIGHT), orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.new("RGB", size, (200, 30, 60)).save(file, exif=exif)


def _image(place, **fields):
    return lambda data, folder: data["images"][place].update(fields)


def _annotation(place, **fields):
    return lambda data, folder: data["annotations"][place].update(fields)


def _without(place, name):
    return lambda data, folder: data["annotations"][place].pop(name)


def _again(part, place, **fields):
    return lambda data, folder: data[part].append(copy.deepcopy(data[part][place]) | fields)


def _file(name, **options):
    return lambda data, folder: _save(folder / name, **options)


def _truncated(data, folder):
    file = folder / "1.png"
    file.write_bytes(file.read_bytes()[:60])


def _pipe(data, folder):
    (folder / "1.png").unlink()
    os.mkfifo(folder / "1.png")


def _deep(kind, suffix):
    def change(data, folder):
        pixels = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(kind)
        Image.fromarray(pixels).save(folder / f"deep.{suffix}")
        data["images"][0]["file_name"] = f"deep.{suffix}"

    return change


def _moved(data, folder):
    data["images"][1]["file_name"] = "images/v1/2.png"


def _ambiguous(data, folder):
    data["images"][1]["file_name"] = "v1/1.png"


def _two_pictures(data, folder):
    data["images"].append(data["images"][0] | {"file_name": "2.png"})
    data["images"][1]["file_name"] = "3.png"
    del data["images"][2]
    del data["annotations"][2]


def _lvis(**fields):
    return lambda data, folder: [image.update(fields) for image in data["images"][:1]]


HUGE = 10**400
THREE = (3, 3)
# kind: (change, id of the first, images and annotations that cleaning leaves)
CASES = [
    ("image_malformed", _image(0, width=0), 1, (2, 2)),
    ("image_malformed", _image(0, height=1e400), 1, (2, 2)),
    ("image_malformed", _image(0, height="30"), 1, (2, 2)),
    ("image_malformed", _image(0, file_name=""), 1, (2, 2)),
    ("image_malformed", lambda data, folder: data["images"].append([1]), "number 3", THREE),
    ("image_malformed", _again("images", 0, id=-1), -1, THREE),
    ("image_malformed", _again("images", 0, id=2**70), 2**70, THREE),
    ("image_malformed", _again("images", 0, id=5.0), "number 3", THREE),
    ("image_malformed", _again("images", 0, id=True), "number 3", THREE),
    ("image_id_again", _again("images", 0), 1, THREE),
    ("image_id_again", _two_pictures, 1, (1, 1)),
    ("file_name_again", _again("images", 0, id=9), 9, THREE),
    ("file_name_again", _again("images", 0, id=9, width=WIDTH * 2), 9, THREE),
    ("file_elsewhere", _moved, 2, THREE),
    ("file_missing", _image(1, file_name="no.png"), 2, (2, 2)),
    ("file_broken", _image(1, file_name="x" * 300), 2, (2, 2)),
    ("file_missing", _ambiguous, 2, (2, 2)),
    ("file_broken", _truncated, 1, (2, 2)),
    ("file_missing", _pipe, 1, (2, 2)),
    ("file_broken", _deep(np.int32, "tiff"), 1, (2, 2)),
    ("file_broken", _deep(np.float32, "tiff"), 1, (2, 2)),
    ("size_differs", _file("1.png", size=(41, 30)), 1, (2, 2)),
    ("size_differs", _file("1.png", size=(30, 40)), 1, (2, 2)),
    ("size_differs", _file("1.png", orientation=6), 1, (2, 2)),
    ("annotation_malformed", lambda data, folder: data["annotations"].append(3), 3, THREE),
    ("annotation_id", _without(0, "id"), "number 0", THREE),
    ("annotation_id", _annotation(0, id="10"), "number 0", THREE),
    ("annotation_id", _annotation(0, id=HUGE), HUGE, THREE),
    ("annotation_id", _annotation(0, id=0), 0, THREE),
    ("annotation_id", _annotation(1, id=10), 10, THREE),
    ("image_unknown", _annotation(0, image_id=99), 10, (3, 2)),
    ("image_unknown", _annotation(0, image_id=[1]), 10, (3, 2)),
    ("image_unknown", _without(0, "image_id"), 10, (3, 2)),
    ("category_unknown", _annotation(0, category_id=3), 10, (3, 2)),
    ("category_unknown", _annotation(0, category_id={}), 10, (3, 2)),
    ("ignored", _annotation(0, ignore=1), 10, THREE),
    ("ignored", _annotation(0, ignore=None), 10, THREE),
    ("ignored", _annotation(0, ignore="no"), 10, THREE),
    ("iscrowd", _annotation(0, iscrowd=2), 10, THREE),
    ("iscrowd", _annotation(0, iscrowd=None), 10, THREE),
    ("iscrowd", _annotation(0, iscrowd="0"), 10, THREE),
    ("box_malformed", _annotation(0, bbox=[1, 2, 3]), 10, (3, 2)),
    ("box_malformed", _annotation(0, bbox=[1, 2, 3, math.nan]), 10, (3, 2)),
    ("box_malformed", _annotation(0, bbox=[1, 2, 3, "4"]), 10, (3, 2)),
    ("box_malformed", _annotation(0, bbox=[1, 2, 3, HUGE]), 10, (3, 2)),
    ("box_malformed", _annotation(0, bbox=None), 10, (3, 2)),
    ("box_malformed", _without(0, "bbox"), 10, (3, 2)),
    ("box_empty", _annotation(0, bbox=[1, 2, 0, 4]), 10, (3, 2)),
    ("box_empty", _annotation(0, bbox=[9, 9, -4, -4]), 10, (3, 2)),
    ("box_outside", _annotation(0, bbox=[41, 2, 10, 10]), 10, (3, 2)),
    ("box_outside", _annotation(0, bbox=[40, 2, 0.5, 10]), 10, (3, 2)),
    ("box_outside", _annotation(0, bbox=[2, -20, 10, 20]), 10, (3, 2)),
    ("box_beyond", _annotation(0, bbox=[2, 3, 39.5, 8]), 10, THREE),
    ("box_beyond", _annotation(0, bbox=[-1e308, 3, 1.5e308, 8]), 10, THREE),
    ("area", _without(0, "area"), 10, THREE),
    ("area", _annotation(0, area=0), 10, THREE),
    ("area", _annotation(0, area="80"), 10, THREE),
    ("mask_missing", _without(0, "segmentation"), 10, (3, 2)),
    ("mask_missing", _annotation(0, segmentation=[]), 10, (3, 2)),
    ("mask_missing", _annotation(0, segmentation="x"), 10, (3, 2)),
    ("polygon_malformed", _annotation(0, segmentation=[POLYGON, [1, 2, 3, 4, 5]]), 10, THREE),
    ("polygon_malformed", _annotation(0, segmentation=[POLYGON, [1, 2, 3, 4]]), 10, THREE),
    ("polygon_malformed", _annotation(0, segmentation=[POLYGON, [math.inf] * 6]), 10, (3, 2)),
    ("polygon_malformed", _annotation(0, segmentation=[POLYGON, 3]), 10, THREE),
    (
        "rle_broken",
        _annotation(1, segmentation={"size": [WIDTH, HEIGHT], "counts": [9, 9]}),
        11,
        (3, 2),
    ),
    ("rle_broken", _annotation(1, segmentation=_rle("5")), 11, (3, 2)),
    ("rle_broken", _annotation(1, segmentation=_rle("~~")), 11, (3, 2)),
    ("rle_broken", _annotation(1, segmentation=_rle([9, 9])), 11, (3, 2)),
    ("rle_broken", _annotation(1, segmentation=_rle([600.0, 600.0])), 11, (3, 2)),
    ("rle_broken", _annotation(1, segmentation=_rle(None)), 11, (3, 2)),
    ("mask_empty", _annotation(1, segmentation=_rle([1200])), 11, (3, 2)),
    ("mask_empty", _annotation(0, segmentation=[[5, 5, 5, 5, 5, 5]]), 10, (3, 2)),
    ("annotation_again", _again("annotations", 0, id=20), 20, THREE),
    ("lvis_list", _lvis(neg_category_ids=None), 1, THREE),
    ("lvis_list", _lvis(not_exhaustive_category_ids=[1, 8]), 1, THREE),
    ("lvis_list", _lvis(neg_category_ids=[2, [2]]), 1, THREE),
    ("lvis_list", _lvis(neg_category_ids=[1, 2], not_exhaustive_category_ids=[1]), 1, THREE),
]


@pytest.mark.parametrize(("kind", "change", "first", "left"), CASES)
def test_each_kind_is_found_alone_and_cleaned(
    check_coco, picture_folder, tmp_path, capsys, kind, change, first, left, coco_set
):
    change(coco_set, picture_folder)
    cleaned = tmp_path / "cleaned.json"
    code, report = check_coco(coco_set, "--write", cleaned)
    assert code == 1
    found = {f["kind"]: f for f in report["findings"] if not f["note"]}
    assert list(found) == [kind]
    assert found[kind]["ids"][0] == first
    text = capsys.readouterr().out
    assert found[kind]["text"] in text
    assert f"{left[0]} of {len(coco_set['images'])} images" in text

    content = json.loads(cleaned.read_text())
    assert (len(content["images"]), len(content["annotations"])) == left
    code, report = check_coco(content)
    assert code == 0, report
    assert report["problems"] == 0


def _boxes(*boxes):
    def change(data, folder):
        for annotation, box in zip(data["annotations"], boxes, strict=True):
            annotation.pop("segmentation")
            annotation |= {"bbox": box, "area": box[2] * box[3]}

    return change


NOTES = [
    ("ids_with_gaps", lambda data, folder: data["categories"].append({"id": 9, "name": "c"})),
    ("image_empty", lambda data, folder: data["annotations"].pop()),
    ("turned", _file("1.png", orientation=3)),
    ("turned", _file("1.png", size=(HEIGHT, WIDTH), orientation=6)),
]


@pytest.mark.parametrize(("kind", "change"), NOTES)
def test_notes_are_no_problems(check_coco, picture_folder, capsys, kind, change, coco_set):
    change(coco_set, picture_folder)
    code, report = check_coco(coco_set)
    assert code == 0
    assert _counts(report) == {kind: 1}
    text = capsys.readouterr().out
    assert "note: " in text
    assert "no problem" in text


def test_boxes_that_are_all_below_2_px_are_noted(check_coco, coco_set):
    _boxes([3, 3, 1, 1], [1, 2, 0.5, 1.9], [0, 0, 1, 1])(coco_set, None)
    code, report = check_coco(coco_set)
    assert (code, _counts(report)) == (0, {"boxes_thin": 3})


def test_fractions_are_not_converted_by_a_program(check_coco, tmp_path, capsys, coco_set):
    """YOLO's boxes; once one number is above 1 it is not so clear."""
    _boxes([0.5, 0.5, 0.25, 1], [0.1, 0.2, 0.05, 0.06], [0, 0, 1, 1])(coco_set, None)
    code, report = check_coco(coco_set, "--write", tmp_path / "cleaned.json")
    assert code == 1
    assert _counts(report) == {"boxes_in_fractions": 3}
    assert "for you to decide first: no number of a box above 1" in capsys.readouterr().err
    assert not (tmp_path / "cleaned.json").exists()


@pytest.mark.parametrize(
    ("kind", "category"),
    [
        ("category_malformed", {"id": -1, "name": "c"}),
        ("category_malformed", {"id": 2**63, "name": "c"}),
        ("category_malformed", {"id": 3}),
        ("category_malformed", {"id": 3, "name": ""}),
        ("category_malformed", {"id": 3, "name": ["c"]}),
        ("category_malformed", {"id": "3", "name": "c"}),
        ("category_again", {"id": 2, "name": "c"}),
        ("category_again", {"id": 3, "name": "a"}),
    ],
)
def test_categories_are_not_decided_by_a_program(
    check_coco, tmp_path, capsys, kind, category, coco_set
):
    coco_set["categories"].append(category)
    code, report = check_coco(coco_set, "--write", tmp_path / "cleaned.json")
    assert code == 1
    assert _counts(report) == {kind: 1}
    assert "for you to decide first" in capsys.readouterr().err
    assert not (tmp_path / "cleaned.json").exists()


def test_cleaning_changes_nothing_else(check_coco, tmp_path, coco_set):
    """Clipped box, new id, area of what is left; other fields and entries as before."""
    coco_set["annotations"][0] |= {"bbox": [-4, 3, 20, 8], "area": 200, "id": 11}
    coco_set["images"].append(coco_set["images"][0] | {"id": 4})
    coco_set["annotations"][1]["image_id"] = 4
    cleaned = tmp_path / "cleaned.json"
    code, report = check_coco(coco_set, "--write", cleaned)
    assert code == 1
    assert report["left_by_cleaning"] == {"images": 3, "annotations": 3}
    expected = copy.deepcopy(coco_set)
    del expected["images"][3]
    expected["annotations"][0] |= {"bbox": [0.0, 3.0, 16.0, 8.0], "area": 128}
    expected["annotations"][1] |= {"image_id": 1, "id": 13}
    assert json.loads(cleaned.read_text()) == expected


def test_iscrowd_of_null_is_no_crowd(check_coco, tmp_path, coco_set):
    for annotation, value in zip(coco_set["annotations"], (None, 2, 1), strict=True):
        annotation["iscrowd"] = value
    cleaned = tmp_path / "cleaned.json"
    _, report = check_coco(coco_set, "--write", cleaned)
    assert _counts(report) == {"iscrowd": 2}
    content = json.loads(cleaned.read_text())
    assert [annotation["iscrowd"] for annotation in content["annotations"]] == [0, 1, 1]


def test_ignored_annotations_become_crowds(check_coco, tmp_path, coco_set):
    """As training on own data reads them."""
    flags = ({"ignore": 1, "iscrowd": None}, {"ignore": None, "iscrowd": 1}, {"ignore": "0"})
    for annotation, flag in zip(coco_set["annotations"], flags, strict=True):
        annotation |= flag
    cleaned = tmp_path / "cleaned.json"
    _, report = check_coco(coco_set, "--write", cleaned)
    assert _counts(report) == {"iscrowd": 1, "ignored": 3}
    content = json.loads(cleaned.read_text())["annotations"]
    assert [(one["iscrowd"], one["ignore"]) for one in content] == [(1, 0), (1, 0), (0, 0)]
    assert [one["iscrowd"] for one in read_coco(cleaned).objects] == [1, 1, 0]


def test_duplicates_are_equal_in_everything_that_counts(check_coco, coco_set):
    first = coco_set["annotations"][0]
    changes = ({"category_id": 2}, {"bbox": [2, 3, 10, 8.5]}, {"segmentation": [POLYGON[2:]]})
    changes += ({"image_id": 2}, {"iscrowd": 1}, {"area": 79, "digit_index": 8}, {})
    coco_set["annotations"] += [first | {"id": 20 + i} | c for i, c in enumerate(changes)]
    _, report = check_coco(coco_set)
    (finding,) = report["findings"]
    assert (finding["kind"], finding["ids"]) == ("annotation_again", [25, 26])
    _, report = check_coco(coco_set, "--boxes-only")  # masks do not distinguish them then
    assert report["findings"][0]["ids"] == [22, 25, 26]


def test_boxes_that_clipping_makes_equal_are_duplicates(check_coco, coco_set):
    first = coco_set["annotations"][0]
    coco_set["annotations"] += [
        first | {"id": 20, "bbox": [-5, 3, 15, 8]},
        first | {"id": 21, "bbox": [-9, 3, 19, 8]},
    ]
    _, report = check_coco(coco_set)
    assert _counts(report) == {"box_beyond": 2, "annotation_again": 1}


@pytest.mark.parametrize(("tolerance", "code"), [("0", 1), ("1", 0), ("0.7", 0), ("0.4", 1)])
def test_tolerance(check_coco, tolerance, code, coco_set):
    coco_set["annotations"][0]["bbox"] = [-0.5, 3, 12, 8]
    found, report = check_coco(coco_set, "--tolerance", tolerance)
    assert found == code
    kinds = {"box_beyond": 1} if code else {}
    assert _counts(report) == kinds


def test_box_sets_need_no_masks(check_coco, coco_set):
    for annotation in coco_set["annotations"]:
        del annotation["segmentation"]
    assert check_coco(coco_set)[0] == 0
    coco_set["annotations"][0]["segmentation"] = []
    assert check_coco(coco_set)[0] == 0


DAMAGES = [
    lambda r, a: a.update(bbox=[r.uniform(-30, 50), r.uniform(-30, 40), r.uniform(-3, 60), 9]),
    lambda r, a: a.update(bbox=r.choice([[], [1, 2, 3, None], [0, 0, math.inf, 1], "box"])),
    lambda r, a: a.update(id=r.choice([0, -3, 5, 5, "x", None])),
    lambda r, a: a.update(area=r.choice([None, -1, 1e9, math.nan])),
    lambda r, a: a.update(image_id=r.choice([1, 2, 77, None])),
    lambda r, a: a.update(category_id=r.choice([1, 2, 77, []])),
    lambda r, a: a.update(segmentation=[[r.uniform(-50, 90) for _ in range(8)], POLYGON]),
    lambda r, a: a.update(segmentation=[[r.uniform(-90, -1) for _ in range(8)]]),
    lambda r, a: a.update(segmentation=r.choice([[], None, {}, [[1, 2]], _rle([0, 3])])),
    lambda r, a: a.update(iscrowd=r.choice([None, 2, "0", True])),
]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_wrong_the_cleaned_file_is_clean(check_coco, tmp_path, seed, coco_set):
    r = random.Random(seed)
    images = coco_set["images"]
    images += [images[2] | {"id": i, "file_name": f"v{i}/1.png"} for i in (3, 5)]
    images += [images[0] | {"id": 8}, images[1], {"id": 6}]
    for image in images[:5]:
        image["neg_category_ids"] = r.choices([1, 2, 3], k=2)
    originals = copy.deepcopy(coco_set["annotations"])
    for number in range(60):
        annotation = copy.deepcopy(r.choice(originals)) | {"id": number}
        annotation["image_id"] = r.choice([1, 2, 3, 5, 8, 6])
        for damage in r.sample(DAMAGES, k=r.randrange(3)):
            damage(r, annotation)
        coco_set["annotations"].append(annotation)
    cleaned = tmp_path / "cleaned.json"
    tolerance = ("--tolerance", r.choice([0, 1, 3]))
    code, report = check_coco(coco_set, "--write", cleaned, *tolerance)
    assert code == 1
    assert len(_counts(report)) > 12
    content = json.loads(cleaned.read_text())
    code, report = check_coco(content, *tolerance)
    assert code == 0, report
    assert len(content["annotations"]) == len(COCO(str(cleaned)).anns) > 2
