"""Files in COCO format: what is filled in, and which message names what is wrong."""

import json
import os

import numpy as np
import pycocotools.mask as mask_api
import pytest

from eva_data.detection.coco import read_coco

NAMED = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
COLUMNS = [20 * 96, 40 * 96, 68 * 96]  # uncompressed RLE, column by column: 40 of 128


def _annotation(**more):
    return {"image_id": 1, "category_id": 3, "bbox": [20, 20, 40, 40]} | more


def test_areas_are_those_of_masks(write_coco):
    file = read_coco(
        write_coco(
            [
                _annotation(segmentation=[[20, 20, 60, 20, 60, 60]]),
                _annotation(segmentation={"size": [96, 128], "counts": COLUMNS}),
                _annotation(),
                _annotation(area=7.5),
                _annotation(bbox=[5, 5, 0, 9]),
            ]
        )
    )
    areas = [one["area"] for one in file.objects]
    assert areas == [pytest.approx(800, rel=0.05), 40 * 96, 1600, 7.5]
    assert "1 objects are left out: their box has no area in the image" in file.describe()


def _without(key, entry):
    return {name: value for name, value in entry.items() if name != key}


def _counts(counts):
    return {"segmentation": {"size": [96, 128], "counts": counts}}


IMAGE = {"id": 1, "file_name": "1.png", "width": 128, "height": 96}
TINY = IMAGE | {"width": 3, "height": 3}
PIXELS = 96 * 128
HUGE = 10**400
POLYGONS = r"\(id 5\) needs polygons of finite numbers .* got "


@pytest.mark.parametrize(
    ("annotation", "changes", "message"),
    [
        ({}, {"categories": []}, r"it needs lists .* and has no categories"),
        ({}, {"images": [{"id": "1"}]}, r"images\[0\] needs an id, .*'1'"),
        ({}, {"images": [IMAGE, IMAGE]}, "several of its images have the id 1"),
        ({}, {"images": [IMAGE | {"width": None}]}, "image 1 needs width and height .*None"),
        ({}, {"images": [_without("file_name", IMAGE)]}, "image 1 has no file_name"),
        ({}, {"categories": [{"id": 3}]}, "category 3 has no name"),
        ({}, {"categories": [*NAMED, {"id": 9, "name": "cat"}]}, "category 9 has the name 'cat'"),
        ({"image_id": "1"}, {}, r"annotations\[0\] \(id 5\) has image_id '1', which is not one of"),
        ({"category_id": 0}, {}, "has category_id 0, which is not one of the file's"),
        (
            {"bbox": [1, 2, 3]},
            {},
            r"needs bbox: \[x, y, width, height\] .* got \[1, 2, 3\]",
        ),
        ({"bbox": [1, 2, float("nan"), 3]}, {}, r"needs bbox: .* got \[1, 2, nan, 3\]"),
        ({"bbox": None}, {}, "needs bbox: .* got None"),
        (
            {"segmentation": {"size": [128, 96], "counts": "x"}},
            {},
            r"RLE of size \[128, 96\]; its image is 128 px wide and 96 px high",
        ),
        ({"bbox": [1, 2, HUGE, 3]}, {}, "needs bbox: "),
        ({}, {"images": [IMAGE | {"width": HUGE}]}, "image 1 needs width and height "),
        ({"segmentation": [[float("nan")] * 6]}, {}, POLYGONS + r"\[nan, nan, "),
        ({"segmentation": [[9, 9, 30, 9, 30, 30], ["a"] * 6]}, {}, POLYGONS + r"\['a', "),
        ({"segmentation": [[9, 9, 30, 9, 30, True]]}, {}, POLYGONS + r"\[9, 9, 30, 9, 30, True"),
        ({"segmentation": [[HUGE] * 6]}, {}, POLYGONS + r"\[1000.{70,80}\.\.\.$"),
        ({"segmentation": [[9, 9, 1e300, 9, 30, 30]]}, {}, POLYGONS),
        (_counts([-5, PIXELS + 5]), {}, r"annotations\[0\] \(id 5\) has an RLE with a negative"),
        (_counts([HUGE]), {}, f"has an RLE of too many pixels; its image has {PIXELS}"),
        (_counts([PIXELS, 1]), {}, f"has an RLE of {PIXELS + 1} pixels; its image has {PIXELS}"),
        (_counts([]), {}, "has an RLE of 0 pixels"),
        (
            _counts([float(PIXELS)]),
            {},
            "RLE with broken counts: they are not a string or a list of integers",
        ),
        (_counts(["a"]), {}, "RLE with broken counts: they are not a string or a list of integers"),
        (_counts("5"), {}, "has an RLE of 5 pixels"),
        (_counts("O0"), {}, "has an RLE with a negative count"),
        (_counts("~~"), {}, "has an RLE with broken counts: character '~'"),
        (_counts("o"), {}, "has an RLE with broken counts: it ends in the middle"),
    ],
)
def test_a_wrong_file_is_named(annotation, changes, message, write_coco):
    file = write_coco([_annotation(id=5) | annotation], **changes)
    with pytest.raises(ValueError, match=message) as caught:
        read_coco(file)
    assert str(caught.value).startswith(str(file))


def test_good_masks_stay(write_coco):
    pixels = np.random.default_rng(0).random((96, 128)) < 0.3
    code = mask_api.encode(np.asfortranarray(pixels, dtype=np.uint8))
    polygons = [[20, 20, 60.5, -3, 60, 60], [1, 2, 3, 4]]
    masks = [{"size": [96, 128], "counts": code["counts"].decode()}, polygons]
    file = read_coco(write_coco([_annotation(segmentation=mask) for mask in masks]))
    assert [one["segmentation"] for one in file.objects] == [masks[0], polygons[:1]]
    assert file.objects[0]["area"] == pixels.sum()


def test_no_file_and_no_json(tmp_path, write_coco):
    with pytest.raises(ValueError, match=r"none\.json is not there"):
        read_coco(tmp_path / "none.json")
    (tmp_path / "a.json").write_bytes(b'{"images": [\xff')
    with pytest.raises(ValueError, match=r"a\.json is not JSON"):
        read_coco(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"a\.json is not in COCO format"):
        read_coco(tmp_path / "a.json")


def test_missing_images_are_told_early(write_coco, tmp_path):
    file = read_coco(write_coco([_annotation()], count=60))
    read_coco(file.path, folder=write_coco.pictures)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere for the images"):
        read_coco(file.path, folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"60 of 60 images of .* \(looked for .*1\.png\)"):
        read_coco(file.path, folder=tmp_path)
    data = json.loads(file.path.read_text())
    for entry in data["images"]:
        entry["file_name"] = f"pictures/{entry['file_name']}"
    file.path.write_text(json.dumps(data))
    read_coco(file.path, folder=tmp_path)
    with pytest.raises(ValueError, match=r"1\.png is there: file_name is relative"):
        read_coco(file.path, folder=write_coco.pictures)


@pytest.mark.parametrize(
    ("annotation", "changes", "message"),
    [
        ({}, {"images": [IMAGE | {"id": -1}]}, "images.* needs an id, .* -1"),
        ({}, {"images": [IMAGE | {"id": 2**70}]}, f"images.* needs an id, .* {2**70}"),
        ({}, {"images": [IMAGE | {"id": True}]}, r"images.* needs an id, .*True"),
        ({}, {"images": [IMAGE | {"id": 1.0}]}, r"images.* needs an id, .*1\.0"),
        ({}, {"categories": [{"id": 2**63, "name": "cat"}]}, "categories.* needs an id"),
        ({"iscrowd": "0"}, {}, r"\(id 5\) has iscrowd '0'; it must be 0 or 1, as a number"),
        ({"ignore": "no"}, {}, r"\(id 5\) has ignore 'no'; it must be 0 or 1, as a number"),
        ({"iscrowd": [0]}, {}, r"\(id 5\) has iscrowd \[0\]; it must be 0 or 1, as a number"),
    ],
)
def test_ids_and_flags_that_the_evaluation_cannot_take(annotation, changes, message, write_coco):
    file = write_coco([_annotation(id=5) | annotation], **changes)
    with pytest.raises(ValueError, match=message):
        read_coco(file)


def test_annotations_must_be_a_list(write_coco):
    with pytest.raises(ValueError, match="'annotations' must be a list, got 5"):
        read_coco(write_coco(5))


def test_crowds_in_every_spelling(write_coco):
    flags = [{}, {"iscrowd": None}, {"iscrowd": 0}, {"iscrowd": False}, {"iscrowd": 0.0}]
    flags += [{"iscrowd": 1}, {"iscrowd": True}, {"ignore": 1}]
    file = read_coco(write_coco([_annotation(**flag) for flag in flags]))
    assert [one["iscrowd"] for one in file.objects] == [0] * 5 + [1] * 3
    largest = IMAGE | {"id": 2**63 - 1}
    file = write_coco([_annotation(image_id=2**63 - 1)], name="large", images=[largest])
    assert list(read_coco(file).images) == [2**63 - 1]


def test_boxes_as_yolo_writes_them_are_refused(write_coco):
    boxes = [[0.5, 0.5, 0.25, 1], [0.1, 0.2, 0.05, 0.06]]
    file = write_coco([_annotation(bbox=box) for box in boxes])
    message = r"no number of any bbox is above 1 \(the first: \[0\.5, .* image 1\): .* YOLO writes"
    with pytest.raises(ValueError, match=message):
        read_coco(file)
    file = read_coco(write_coco([_annotation(bbox=[1.5, 0.5, 1, 1.9])], name="thin"))
    assert "all boxes are below 2 px: are they in pixels" in file.describe()
    both = [_annotation(bbox=[0, 0, 1, 1]), _annotation()]
    assert "below 2 px" not in read_coco(write_coco(both, name="both")).describe()
    small = write_coco([_annotation(bbox=[0, 0, 1, 1])], name="small", images=[TINY])
    assert "below 2 px" not in read_coco(small).describe()  # as small as its image allows


def test_boxes_outside_the_image_are_left_out(write_coco):
    """They cannot be found; training leaves them out, too."""
    boxes = [[128, 2, 10, 10], [2, -20, 10, 20], [-9, -9, 9.5, 9.5], [120, 90, 90, 90]]
    file = read_coco(write_coco([_annotation(bbox=box) for box in boxes]))
    assert [one["bbox"] for one in file.objects] == boxes[2:]
    assert "2 objects are left out: their box has no area in the image" in file.describe()


def test_names_of_categories_may_be_numbers(write_coco):
    named = [{"id": 3, "name": 7}, {"id": 4, "name": 0}]
    file = read_coco(write_coco([_annotation()], categories=named))
    assert file.categories == {3: "7", 4: "0"}
    for wrong in ("", None, ["cat"], {}):
        path = write_coco([_annotation()], categories=[{"id": 3, "name": wrong}])
        with pytest.raises(ValueError, match="category 3 has no name"):
            read_coco(path)


def test_one_missing_image_of_forty_is_told_early(write_coco):
    file = read_coco(write_coco([_annotation()], count=40))
    read_coco(file.path, folder=write_coco.pictures)
    (write_coco.pictures / "18.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 40 images of .* \(looked for .*18\.png\)"):
        read_coco(file.path, folder=write_coco.pictures)
    os.mkfifo(write_coco.pictures / "18.png")
    with pytest.raises(ValueError, match=r"1 of 40 images .* are not files .*18\.png"):
        read_coco(file.path, folder=write_coco.pictures)


def test_a_file_that_is_a_pipe_or_nested_too_deep(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json is a named pipe and not a file"):
        read_coco(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"b\.json is not JSON"):
        read_coco(tmp_path / "b.json")


def test_sides_of_images_may_be_written_with_a_point(write_coco):
    """As `eva data verify coco` has it: some programs write all numbers so."""
    path = write_coco([_annotation()], images=[IMAGE | {"width": 128.0, "height": 96.0}])
    image = read_coco(path).images[1]
    assert (image["width"], image["height"]) == (128, 96)
    assert (type(image["width"]), type(image["height"])) == (int, int)
    for wrong in (128.5, 2.0**31, -128.0, float("inf")):
        path = write_coco([_annotation()], images=[IMAGE | {"width": wrong}])
        with pytest.raises(ValueError, match="image 1 needs width and height in pixels"):
            read_coco(path)
