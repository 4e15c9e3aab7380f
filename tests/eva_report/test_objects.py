"""Objects on images: colors, places, sizes, and what no image breaks."""

import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as rle

from eva_report.drawing import DrawnObject, class_color, draw_objects

GREY = 128


def image(height=600, width=800):
    return np.full((height, width, 3), GREY, np.uint8)


def is_color(drawn, label):
    return (drawn == class_color(label)).all(axis=2)


def code(mask):
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


def ellipse(height, width):
    ys, xs = np.mgrid[:height, :width]
    return ((ys - 300) / 100) ** 2 + ((xs - 400) / 150) ** 2 < 1


def test_a_box_and_its_name_have_the_color_of_the_class():
    given = image()
    drawn = draw_objects(given, [DrawnObject((100, 200, 300, 400), "coin", 3, 0.87)])
    assert drawn.shape == given.shape
    assert (given == GREY).all()
    found = is_color(drawn, 3)
    assert found[300, 98:103].any()
    assert found[398:403, 200].any()
    assert not found[250:350, 150:250].any()
    assert found[170:198, 105:140].any()  # the name, above the box


def test_masks_are_painted_where_they_are():
    mask = ellipse(600, 800)
    drawn = draw_objects(image(), [DrawnObject((250, 200, 550, 400), "", 2, None, code(mask))])
    expected = 0.6 * GREY + 0.4 * np.array(class_color(2))
    assert np.abs(drawn[300, 400] - expected).max() <= 1
    assert (drawn[240, 262] == GREY).all()  # in the box, beside the mask


def test_some_objects_have_masks_and_others_none():
    objects = [
        DrawnObject((250, 200, 550, 400), "a", 2, 0.5, code(ellipse(600, 800))),
        DrawnObject((10, 10, 50, 50), "b", 7, 0.5),
        DrawnObject((0, 0, 5, 5), "empty", 1, 0.5, code(np.zeros((600, 800), bool))),
    ]
    assert is_color(draw_objects(image(), objects), 7).any()


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="300"):
        draw_objects(image(), [DrawnObject((0, 0, 9, 9), "", 0, None, code(np.ones((300, 400))))])


def test_small_images_are_enlarged_and_large_ones_made_smaller_if_asked():
    one = [DrawnObject((20, 30, 60, 50), "coin", 0, 0.5)]
    assert draw_objects(image(60, 80), one).shape == (420, 560, 3)
    assert draw_objects(image(60, 80), one, scale=1).shape == (60, 80, 3)
    mask = code(ellipse(600, 800))
    one = [DrawnObject((250, 200, 550, 400), "coin", 0, 0.5, mask)]
    less = draw_objects(image(), one, longest=400)
    assert less.shape == (300, 400, 3)
    assert (less[150, 200] != GREY).all()
    assert (less[105, 130] == GREY).all()


def test_masks_of_a_large_image_cost_no_memory_for_each():
    height, width = 3000, 4000
    mask = np.zeros((height, width), bool)
    mask[100:200, 3000:3100] = True
    one = DrawnObject((3000, 100, 3100, 200), "coin", 0, 0.5, code(mask))
    draw_objects(image(), [DrawnObject((0, 0, 9, 9), "", 0)])  # imports
    given = np.zeros((height, width, 3), np.uint8)
    tracemalloc.start()
    draw_objects(given, [one] * 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * given.nbytes  # 200 masks are 66 times the image


def test_a_side_that_no_jpeg_has_is_refused():
    with pytest.raises(ValueError, match="65,536"):
        draw_objects(image(2, 65_536), [])


@pytest.mark.parametrize("name", ["\udcff.png", "漢字", "שלום", "a\nb\0", "", "W" * 100_000])
def test_names_with_any_character(name):
    drawn = draw_objects(image(), [DrawnObject((10, 50, 60, 90), name, 0, float("nan"))])
    assert drawn.shape == (600, 800, 3)


@pytest.mark.parametrize(
    "box",
    [(float("nan"), 0, 1, 1), (900, 900, 950, 950), (-50, -50, 2000, 2000), (30, 20, 10, 10)],
)
def test_boxes_beyond_the_image(box):
    assert draw_objects(image(), [DrawnObject(box, "coin", 0)]).shape == (600, 800, 3)
