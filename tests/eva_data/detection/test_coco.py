"""Files in COCO format: what is filled in, and which message names what is wrong."""

import math
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
import pytest

from eva_data.detection.coco import read_coco
from eva_data.detection.rules import rle_runs

NAMED = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
COLUMNS = [20 * 96, 40 * 96, 68 * 96]  # uncompressed RLE, column by column: 40 of 128
IMAGE = {"id": 1, "file_name": "1.png", "width": 128, "height": 96}
PIXELS = 96 * 128
HUGE = 10**400
NO_POLYGONS: list[Any] = [
    [20, 20, 60, 20, 60, 60],
    "[[20, 20, 60, 20, 60, 60]]",
    [[[20, 20], [60, 20], [60, 60]]],
    ["20", "20", "60", "20", "60", "60"],
    [{"size": [96, 128], "counts": COLUMNS}],
    {},
    True,
    5,
]


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
        ({}, {"images": [IMAGE | {"id": 2**70}]}, f"images.*: id .* {2**70}"),
        ({}, {"images": [IMAGE, IMAGE]}, r"images\[0\]: id .*no other .* 1$"),
        ({}, {"images": [IMAGE | {"width": HUGE}]}, r"\(id 1\): size "),
        ({}, {"images": [IMAGE | {"file_name": 7}]}, r"\(id 1\): file_name .* 7"),
        ({}, {"categories": [{"id": 3}]}, r"\(id 3\): name .*None"),
        ({}, {"categories": [*NAMED, {"id": 9, "name": "cat"}]}, r"\(id 3\): name .*'cat'"),
        ({"image_id": "1"}, {}, r"annotations\[0\] \(id 5\): image_id .*'1'"),
        ({"bbox": [1, 2, math.nan, 3]}, {}, r"bbox .* got \[1, 2, nan, 3\]"),
        ({"iscrowd": "0"}, {}, r"\(id 5\): iscrowd .*'0'"),
        ({"segmentation": [[math.nan] * 6]}, {}, r"segmentation .*\[nan, nan, "),
        *(
            ({"segmentation": wrong}, {}, "segmentation .*list of polygons")
            for wrong in NO_POLYGONS
        ),
        ({"segmentation": [[9, 9, 30, 9, 30, 30], ["a"] * 6]}, {}, "segmentation .*'a'"),
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


def test_boxes_as_yolo_writes_them_are_refused(write_coco):
    boxes = [[0.5, 0.5, 0.25, 1], [0.1, 0.2, 0.05, 0.06]]
    with pytest.raises(ValueError, match=r"such as \[0\.5, .*YOLO writes"):
        read_coco(write_coco([_annotation(bbox=box) for box in boxes]))
    tiny = [IMAGE | {"width": 3, "height": 3}]
    assert read_coco(write_coco([_annotation(bbox=[0, 0, 1, 1])], images=tiny)).objects
