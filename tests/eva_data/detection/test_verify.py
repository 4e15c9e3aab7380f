"""The check of detection data: what training refuses is counted and left out of the copy."""

import copy
import json
import math
import os
import re
from contextlib import nullcontext, suppress

import numpy as np
import pytest
from PIL import Image

from eva_command.verify import main as run_check


def _image(place, **fields):
    return lambda data, folder: data["images"][place].update(fields)


def _annotation(place, **fields):
    return lambda data, folder: data["annotations"][place].update(fields)


def _without(place, name):
    return lambda data, folder: data["annotations"][place].pop(name)


def _append(part, place, **fields):
    return lambda data, folder: data[part].append(copy.deepcopy(data[part][place]) | fields)


def _save(name, size, orientation=1):
    def change(data, folder):
        exif = Image.Exif()
        exif[274] = orientation
        Image.new("RGB", size, (200, 30, 60)).save(folder / name, exif=exif)

    return change


def _truncated(data, folder):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])


def _pipe(data, folder):
    (folder / "1.png").unlink()
    os.mkfifo(folder / "1.png")


def _fractions_of_pixels(data, folder):
    Image.fromarray(np.zeros((30, 40), np.float32)).save(folder / "deep.tiff")
    data["images"][0]["file_name"] = "deep.tiff"


# field: (change, images and annotations that are left)
CASES = [
    ("images.entry", lambda data, folder: data["images"].append([1]), (3, 3)),
    ("images.id", _append("images", 0, id=-1), (3, 3)),
    ("images.file_name", _append("images", 0, id=9, file_name=""), (3, 3)),
    ("images.file", _image(1, file_name="images/v1/2.png"), (3, 3)),  # corrected
    ("images.file", _image(1, file_name="v1/1.png"), (2, 2)),  # which is of another
    ("images.file", _truncated, (2, 2)),
    ("images.file", _pipe, (2, 2)),
    ("images.file", _fractions_of_pixels, (2, 2)),
    ("images.file", _save("1.png", (41, 30)), (2, 2)),
    ("images.file", _save("1.png", (40, 30), orientation=6), (2, 2)),
    ("categories.name", _append("categories", 0, id=9, name=None), (3, 3)),
    ("annotations.entry", lambda data, folder: data["annotations"].append(3), (3, 3)),
    ("annotations.category_id", _annotation(0, category_id=3), (3, 2)),
    ("annotations.iscrowd", _annotation(0, iscrowd=2), (3, 2)),
    ("annotations.bbox", _annotation(0, bbox=[1, 2, 3, math.nan]), (3, 2)),
    ("annotations.segmentation", _without(0, "segmentation"), (3, 2)),
    ("annotations.segmentation", _annotation(1, segmentation={"size": [30, 40], "counts": "5"}),
     (3, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("field", "change", "left"), CASES)
def test_each_error_is_counted_alone_and_left_out(
    check_coco, picture_folder, tmp_path, field, change, left, coco_set
):
    change(coco_set, picture_folder)
    cleaned = tmp_path / "cleaned.json"
    assert check_coco(coco_set, "--write", cleaned) == (1, {field: 1})
    content = json.loads(cleaned.read_text())
    assert (len(content["images"]), len(content["annotations"])) == left
    assert content["images"][-1]["extra"] == "kept"
    assert content["categories"][0]["frequency"] == "r"
    assert check_coco(content) == (0, {})


def test_what_training_accepts_is_no_problem(check_coco, tmp_path, capsys, coco_set):
    boxes = ([2, 3, 39.5, 8], [9, 9, -4, 4], [41, 2, 10, 10])  # clipped, left out, left out
    for one, box, crowd in zip(coco_set["annotations"], boxes, (None, 1, False), strict=True):
        one |= {"bbox": box, "iscrowd": crowd, "id": "any", "area": "80"}
    assert check_coco(coco_set) == (0, {})
    printed = capsys.readouterr().out
    assert "2 objects are left out" in printed
    assert "no problem" in printed


def test_a_class_of_objects_without_masks_is_no_empty_one(check_coco, coco_set):
    del coco_set["categories"][0]["frequency"]  # of LVIS, where classes may be empty
    for annotation in coco_set["annotations"][1:]:
        del annotation["segmentation"]
    found = {"annotations.segmentation": 1}
    assert check_coco(coco_set, allows_empty=False) == (1, found)


def test_a_class_that_validation_does_not_list_is_told(picture_folder, tmp_path, capsys, coco_set):
    del coco_set["categories"][0]["frequency"]  # of LVIS
    val = copy.deepcopy(coco_set)
    del val["categories"][0], val["annotations"][0]
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    for part, data in (("train", coco_set), ("val", val)):
        (root / part).symlink_to(picture_folder)
        (root / f"annotations/instances_{part}.json").write_text(json.dumps(data))
    assert run_check([str(root), "--workers", "1"]) == 0
    assert re.search("class without an object here +1 .* a$", capsys.readouterr().out, re.MULTILINE)


def test_boxes_that_are_corners_are_told(check_coco, capsys, coco_set):
    for annotation in coco_set["annotations"]:
        annotation["bbox"] = [20, 15, 38, 28]  # of an image of 40 x 30
    assert check_coco(coco_set) == (0, {})
    assert "outside their images: 3 (a bbox is x, y, width, height" in capsys.readouterr().out


def test_boxes_alone_and_headers_alone(check_coco, picture_folder, coco_set):
    coco_set["annotations"][0]["segmentation"] = 7
    assert check_coco(coco_set, "--boxes-only") == (0, {})
    Image.effect_noise((40, 30), 90).save(picture_folder / "1.png")
    _truncated(None, picture_folder)
    del coco_set["annotations"][0]
    (picture_folder / "2.png").write_bytes(b"no picture")
    assert check_coco(coco_set, "--skip-decode")[1] == {"images.file": 1}


def test_the_images_of_lvis_have_a_url_alone(check_coco, picture_folder, coco_set):
    for image in coco_set["images"]:
        image["coco_url"] = f"http://host/val2017/{image.pop('file_name')}"
    (picture_folder / "val2017").mkdir()
    for i in (1, 2, 3):
        (picture_folder / f"{i}.png").rename(picture_folder / "val2017" / f"{i}.png")
    assert check_coco(coco_set) == (0, {})


@pytest.mark.parametrize("folder", [".", "far/away"])  # the former is looked in unasked
def test_a_file_in_place_of_the_check_may_name_its_images(
    folder, picture_folder, coco_set, tmp_path
):
    folder, file = tmp_path / folder, tmp_path / "x/instances.json"
    for place in (folder, file.parent):
        place.mkdir(parents=True, exist_ok=True)
    picture_folder.rename(folder / "images")
    for image in coco_set["images"]:  # as in LVIS
        image["coco_url"] = f"http://host/images/{image.pop('file_name')}"
    file.write_text(json.dumps(coco_set))
    words = [str(file), "--workers", "1", "--allow-empty-classes"]
    assert run_check([*words, "--images", str(folder)]) == 0
    code, expected = (0, nullcontext()) if folder == tmp_path else (2, pytest.raises(SystemExit))
    with expected:
        assert run_check(words) == code
    for images in ({"1": {}}, [{"id": 1}], ["1.png"]):
        file.write_text(json.dumps(coco_set | {"images": images}))
        with suppress(SystemExit):  # no other exception
            assert run_check(words) == 1
