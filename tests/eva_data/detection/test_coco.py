"""Files in COCO format: what is filled in, and which message names what is wrong."""

import contextlib
import copy
import json
import math
import os
import random
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
import pytest

from eva_command.verify import main as verify
from eva_data.detection.coco import read_coco
from eva_data.detection.rules import rle_runs

NAMED = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
COLUMNS = [20 * 96, 40 * 96, 68 * 96]  # uncompressed RLE, column by column: 40 of 128
IMAGE = {"id": 1, "file_name": "1.png", "width": 128, "height": 96}
PIXELS = 96 * 128
HUGE = 10**400


def _annotation(**more):
    return {"image_id": 1, "category_id": 3, "bbox": [20, 20, 40, 40]} | more


def _counts(counts):
    return {"segmentation": {"size": [96, 128], "counts": counts}}


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
    assert file.left_out == 1


@pytest.mark.parametrize(
    ("annotation", "changes", "message"),
    [
        ({}, {"categories": []}, "categories"),
        ({}, {"categories": 5}, "categories is 5"),
        ({}, {"images": [{"id": "1"}]}, r"images\[0\]: id .*'1'"),
        ({}, {"images": [IMAGE | {"id": 2**70}]}, f"images.*: id .* {2**70}"),
        ({}, {"images": [IMAGE, IMAGE]}, r"images\[0\]: id .*no other .* 1$"),
        ({}, {"images": [IMAGE | {"width": HUGE}]}, r"\(id 1\): size "),
        ({}, {"images": [IMAGE | {"width": 128.5}]}, r"\(id 1\): size .*128\.5"),
        ({}, {"images": [IMAGE | {"file_name": 7}]}, r"\(id 1\): file_name .* 7"),
        ({}, {"categories": [{"id": 3}]}, r"\(id 3\): name .*None"),
        ({}, {"categories": [*NAMED, {"id": 9, "name": "cat"}]}, r"\(id 3\): name .*'cat'"),
        ({"image_id": "1"}, {}, r"annotations\[0\] \(id 5\): image_id .*'1'"),
        ({"category_id": 0}, {}, "category_id .* 0"),
        ({"bbox": [1, 2, math.nan, 3]}, {}, r"bbox .* got \[1, 2, nan, 3\]"),
        ({"bbox": [1, 2, HUGE, 3]}, {}, "bbox "),
        ({"iscrowd": "0"}, {}, r"\(id 5\): iscrowd must be 0 or 1, got '0'"),
        ({"ignore": [0]}, {}, r"\(id 5\): ignore must be 0 or 1, got \[0\]"),
        ({"segmentation": {"size": [128, 96], "counts": "x"}}, {}, r"segmentation .*\[128, 96\]"),
        ({"segmentation": [[math.nan] * 6]}, {}, r"segmentation .*\[nan, nan, "),
        ({"segmentation": [[9, 9, 30, 9, 30, 30], ["a"] * 6]}, {}, "segmentation .*'a'"),
        ({"segmentation": [[9, 9, 1e300, 9, 30, 30]]}, {}, "segmentation "),
        (_counts([-5, PIXELS + 5]), {}, "segmentation .*-5"),
    ],
)
def test_a_wrong_file_is_named(annotation, changes, message, write_coco):
    file = write_coco([_annotation(id=5) | annotation], **changes)
    with pytest.raises(ValueError, match=message) as caught:
        read_coco(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_equal_pycocotools(seed):
    generator = np.random.default_rng(seed)
    pixels = np.asfortranarray(generator.random((30, 40)) < generator.random(), dtype=np.uint8)
    counts = mask_api.encode(pixels)["counts"].decode()
    lengths = rle_runs({"size": [30, 40], "counts": counts}, (30, 40))
    values = np.repeat(np.arange(len(lengths)) % 2, lengths)
    assert np.array_equal(values.reshape(30, 40, order="F"), pixels)
    assert rle_runs({"size": [30, 40], "counts": lengths}, (30, 40)) == lengths
    for width in (pixels.size - 1, pixels.size + 1):
        with pytest.raises(ValueError, match=f"^RLE .* {width} pixels"):
            rle_runs({"size": [1, width], "counts": counts}, (1, width))


@pytest.mark.parametrize(
    "counts",
    [None, 5, [7.0], ["7"], [True], [], [3, -1, 5], [3, 5], [HUGE], "~~", "o", "5", "o" * 99],
)
def test_counts_that_are_not_counts(counts):
    assert rle_runs({"size": [1, 7], "counts": [3, 0, 4]}, (1, 7)) == [3, 0, 4]
    with pytest.raises(ValueError, match=r"^RLE of size"):
        rle_runs({"size": [1, 7], "counts": counts}, (1, 7))


@pytest.mark.parametrize("content", [b'{"images": [\xff', b"[1]", b"[" * 200_000])
def test_files_that_are_none(tmp_path, content):
    for name, error in (("none.json", FileNotFoundError), ("pipe.json", OSError)):
        with contextlib.suppress(FileExistsError):
            os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises(error, match=name):
            read_coco(tmp_path / name)
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not "):
        read_coco(tmp_path / "a.json")


def test_missing_images_are_told_early(write_coco, tmp_path):
    file = read_coco(write_coco([_annotation()], count=40))
    read_coco(file.path, folder=write_coco.pictures)
    with pytest.raises(ValueError, match=r"40 of 40 images of .* \(looked for .*1\.png\)"):
        read_coco(file.path, folder=tmp_path)
    data = json.loads(file.path.read_text())
    for entry in data["images"]:
        entry["file_name"] = f"pictures/{entry['file_name']}"
    (tmp_path / "below.json").write_text(json.dumps(data))
    read_coco(tmp_path / "below.json", folder=tmp_path)
    with pytest.raises(ValueError, match=r"1\.png is there: file_name is relative"):
        read_coco(tmp_path / "below.json", folder=write_coco.pictures)
    (write_coco.pictures / "18.png").unlink()
    os.mkfifo(write_coco.pictures / "18.png")
    with pytest.raises(ValueError, match=r"1 of 40 images .* are not files .*18\.png"):
        read_coco(file.path, folder=write_coco.pictures)


def test_what_is_read_in_every_spelling(write_coco):
    flags = [{}, {"iscrowd": None}, {"iscrowd": 0}, {"iscrowd": False}, {"iscrowd": 0.0}]
    flags += [{"iscrowd": 1}, {"iscrowd": True}, {"ignore": 1}]
    file = read_coco(write_coco([_annotation(**flag) for flag in flags]))
    assert [one["iscrowd"] for one in file.objects] == [0] * 5 + [1] * 3
    image = IMAGE | {"id": 2**63 - 1, "width": 128.0, "height": 96.0}
    named = [{"id": 3, "name": 7}, {"id": 4, "name": 0}]
    path = write_coco([_annotation(image_id=2**63 - 1)], images=[image], categories=named)
    file = read_coco(path)
    assert file.categories == {3: "7", 4: "0"}
    assert json.dumps(file.images[2**63 - 1]["width"]) == "128"


def test_boxes_as_yolo_writes_them_are_refused(write_coco):
    boxes = [[0.5, 0.5, 0.25, 1], [0.1, 0.2, 0.05, 0.06]]
    with pytest.raises(ValueError, match=r"such as \[0\.5, .*YOLO writes"):
        read_coco(write_coco([_annotation(bbox=box) for box in boxes]))
    tiny = [IMAGE | {"width": 3, "height": 3}]
    assert read_coco(write_coco([_annotation(bbox=[0, 0, 1, 1])], images=tiny)).objects


def test_boxes_outside_the_image_are_left_out(write_coco):
    """They cannot be found; training leaves them out, too."""
    boxes = [[128, 2, 10, 10], [2, -20, 10, 20], [-9, -9, 9.5, 9.5], [120, 90, 90, 90]]
    file = read_coco(write_coco([_annotation(bbox=box) for box in boxes]))
    assert [one["bbox"] for one in file.objects] == boxes[2:]
    assert file.left_out == 2


WRONG: list[Any] = [None, True, -1, 0, 1.5, HUGE, 2**70, 1e308, math.nan, math.inf, "", "7"]
WRONG += ["\ud800", "\0", "pipe.png", "loop.png", "folder.png", [], [[]], {}, {"a": 1}]
WRONG += [[None] * 4, [HUGE] * 4, ["1"] * 4, [1e308] * 4, [[1e308] * 6], [[1, 2]]]
COUNTS: list[Any] = ["o" * 999, [HUGE], [2**63, -1], None, {}]
WRONG += [{"size": [30, 40], "counts": counts} for counts in COUNTS]
FILES = [b"", b"null", b"5", b"[]", b"\xff\xfe[", bytes(99), b"9" * 5000]


def test_damaged_files_never_get_a_traceback(coco_set, picture_folder, tmp_path):
    os.mkfifo(picture_folder / "pipe.png")
    (picture_folder / "loop.png").symlink_to("loop.png")
    (picture_folder / "folder.png").mkdir()
    contents: list[bytes] = []

    def add(part, change):
        data = copy.deepcopy(coco_set)
        change(data[part] if part else data)
        contents.append(json.dumps(data).encode())

    for part in ("images", "annotations", "categories"):
        for field in coco_set[part][0]:
            add(part, lambda entries, field=field: entries[0].pop(field))
        for wrong in WRONG:
            add(None, lambda data, part=part, wrong=wrong: data.update({part: wrong}))
            add(part, lambda entries, wrong=wrong: entries.append(wrong))
            for field in coco_set[part][0]:
                add(part, lambda entries, f=field, w=wrong: entries[0].update({f: w}))
    file, codes = tmp_path / "damaged.json", []
    words = ["--images", picture_folder, "--skip-decode", "--workers", 1, "--overwrite"]
    words += ["--write", tmp_path / "cleaned.json"]
    for content in FILES + random.Random(0).sample(contents, 150):
        file.write_bytes(content)
        codes.append(verify([str(word) for word in ("coco", "--annotations", file, *words)]))
        with contextlib.suppress(ValueError):  # any other error is a traceback
            read_coco(file, folder=picture_folder)
    assert set(codes) == {0, 1, 2}
