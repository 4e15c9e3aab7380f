"""The rules of COCO's format: each by hand, and run lengths against pycocotools."""

import math

import numpy as np
import pycocotools.mask as mask_api
import pytest

from eva_data.detection.rules import (
    LARGEST_ID,
    category_name,
    clip,
    flag,
    has_corners,
    is_box,
    is_id,
    is_integer,
    is_number,
    is_side,
    rle_runs,
    shown,
    suspected_unit,
)

SIZE = (30, 40)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_equal_pycocotools(seed):
    random = np.random.default_rng(seed)
    pixels = np.asfortranarray(random.random(SIZE) < random.random(), dtype=np.uint8)
    counts = mask_api.encode(pixels)["counts"].decode()
    lengths = rle_runs({"size": list(SIZE), "counts": counts}, SIZE)
    values = np.repeat(np.arange(len(lengths)) % 2, lengths)
    assert np.array_equal(values.reshape(SIZE, order="F"), pixels)
    for code in (counts, lengths):
        assert rle_runs({"size": list(SIZE), "counts": code}, SIZE) == lengths
    for width in (pixels.size - 1, pixels.size + 1):
        with pytest.raises(ValueError, match=f"^RLE of 1200 pixels; its image has {width}"):
            rle_runs({"size": [1, width], "counts": counts}, (1, width))


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (is_integer, (0, -1, 10**400), (True, 1.0, "1", None, [])),
        (is_id, (0, LARGEST_ID), (-1, LARGEST_ID + 1, True, 1.0, "1")),
        (is_side, (1, 128, 128.0, 2**31 - 1), (0, -1, 2**31, 128.5, math.inf, 10**400, True, "1")),
        (is_number, (0, -1.5, 2**70), (True, math.nan, math.inf, 10**400, "1", None, [])),
        (
            is_box,
            ([0, 1.5, -2, 3],),
            ([1, 2, 3], (1, 2, 3, 4), [1, 2, 3, "4"], [math.nan] * 4),
        ),
        (has_corners, ([1] * 6, [1] * 8), ([1] * 4, [1] * 7, (1,) * 6, "123456", None)),
    ],
)
def test_what_is_right_and_what_is_wrong(rule, right, wrong):
    assert all(map(rule, right))
    assert not any(map(rule, wrong))


def test_counts_that_are_not_counts():
    for counts in (None, 5, [1.0], ["1"], [True]):
        with pytest.raises(ValueError, match="not a string or a list of integers"):
            rle_runs({"size": [1, 7], "counts": counts}, (1, 7))
    assert rle_runs({"size": [1, 7], "counts": [3, 0, 4]}, (1, 7)) == [3, 0, 4]
    for counts in ([3, -1, 5], [3, 5]):
        with pytest.raises(ValueError, match=r"RLE (with a negative count|of 8 pixels)"):
            rle_runs({"size": [1, 7], "counts": counts}, (1, 7))


def test_names_and_flags():
    names = [category_name({"name": name}) for name in ("a", "", 7, 0, 1.5, None, ["a"])]
    assert names == ["a", "", "7", "0", "1.5", "", ""]
    assert category_name({}) == ""
    assert [flag(value) for value in (None, 0, 1, True, 0.0)] == [0, 0, 1, 1, 0]
    assert [flag(value) for value in ("0", "", 2, [0], -1)] == [None] * 5


def test_boxes_in_images():
    boxes = np.array([[0, 0, 1, 1], [-3, 2, 5, 9], [4, 4, 1, 1.0]])
    sides = np.array([[4, 9], [5, 8], [4, 9.0]])
    large = sides + 5
    assert [suspected_unit(boxes[:1], large[:1]), suspected_unit(boxes[::2], large[::2])] == [
        "fractions",
        "thin",
    ]
    # small images, another box, and none
    assert not suspected_unit(boxes[:1], sides[:1]) + suspected_unit(boxes, large)
    assert not suspected_unit(boxes[:0], sides[:0])
    clipped, beyond, outside = clip(boxes, sides)
    assert clipped.tolist() == [[0, 0, 1, 1], [0, 2, 2, 6], [4, 4, 0, 1]]
    assert beyond.tolist() == [0, 3, 1]
    assert outside.tolist() == [False, False, True]
    unknown = np.array([[0, 0, 1, 1], [math.nan] * 4])
    assert not clip(unknown, np.array([[math.nan] * 2, [9, 9]]))[2].any()


def test_values_are_shown_shortened():
    assert shown("a") == "'a'"
    assert shown([1] * 99, 20) == "[1, 1, 1, 1, 1, 1..."
