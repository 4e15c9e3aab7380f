"""Objects on pictures: where boxes, masks and names come, and what no picture breaks."""

import tracemalloc

import numpy as np
import pytest
from pycocotools import mask as rle

from eva_report.drawing import objects as drawing
from eva_report.drawing.objects import DrawnObject, draw_objects
from eva_report.drawing.style import class_color, text_color

GREY = 128


def picture(height=600, width=800):
    return np.full((height, width, 3), GREY, np.uint8)


def is_colour(drawn, label):
    return (drawn == class_color(label)).all(axis=2)


def ellipse(height, width):
    ys, xs = np.mgrid[:height, :width]
    return ((ys - 300) / 100) ** 2 + ((xs - 400) / 150) ** 2 < 1


def code(mask):
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_a_box_and_its_name_have_the_colour_of_the_class():
    image = picture()
    drawn = draw_objects(image, [DrawnObject((100, 200, 300, 400), "coin", 3, 0.87)])
    assert drawn.shape == image.shape
    assert (image == GREY).all()  # the picture that was given is left alone
    found = is_colour(drawn, 3)
    ys, xs = np.nonzero(found)
    assert (xs.min(), xs.max(), ys.max()) == (100, 299, 399)
    assert found[398, 100:300].all()
    assert found[200:400, 100].all()
    assert not found[250:350, 150:250].any()
    assert 170 < ys.min() < 190  # the name, above the box
    ink = (drawn[:200] == text_color(class_color(3))).all(axis=2)
    assert ink.any()


@pytest.mark.parametrize(
    "box",
    [
        *((0, 0, 40, 30), (790, 590, 800, 600), (-50, -50, 2000, 2000), (300, 0, 320, 600)),
        *((900, 900, 950, 950), (5, 5, 5, 5), (30, 20, 10, 10)),
    ],
)
def test_names_stay_inside_the_picture(box, monkeypatch):
    places = []
    monkeypatch.setattr(
        drawing, "_covers", lambda taken, place: places.append(place) or len(taken) > 1
    )
    draw_objects(picture(), [DrawnObject(box, "a coin of some length", 1, 0.5)])
    (left, top, right, bottom), *_ = places
    assert left >= 0 <= top
    assert right <= 800
    assert bottom <= 600
    assert right - left > 100


def test_every_object_of_one_place_has_its_name_but_in_a_crowd(monkeypatch):
    tags = []
    original = drawing.ImageDraw.Draw
    monkeypatch.setattr(
        drawing.ImageDraw, "Draw", lambda image: tags.append(image) or original(image)
    )
    same = [DrawnObject((100, 200, 300, 400), f"class {label}", label) for label in range(4)]
    draw_objects(picture(), same)
    assert len(tags) == 4
    tags.clear()
    draw_objects(picture(), same * 100)
    assert 4 <= len(tags) < 20


def test_masks_are_painted_where_they_are_whatever_their_form():
    mask = ellipse(600, 800)
    forms = [mask, code(mask), {**code(mask), "counts": code(mask)["counts"].decode()}]
    box = (250, 200, 550, 400)
    drawn = [draw_objects(picture(), [DrawnObject(box, "", 2, None, one)]) for one in forms]
    for one in drawn[1:]:
        np.testing.assert_array_equal(one, drawn[0])
    expected = np.round(0.6 * GREY + 0.4 * np.array(class_color(2)))
    np.testing.assert_array_equal(drawn[0][300, 400], expected)
    assert is_colour(drawn[0], 2)[301, 251]  # the outline
    assert (drawn[0][240, 262] == GREY).all()  # in the box, beside the mask


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="400 x 300 px is not that of a picture of 800 x 600"):
        draw_objects(
            picture(), [DrawnObject((0, 0, 9, 9), "", 0, None, np.zeros((300, 400), bool))]
        )


def test_small_pictures_are_enlarged_and_large_ones_made_smaller_if_asked():
    mask = np.zeros((60, 80), bool)
    mask[30:50, 20:60] = True
    one = [DrawnObject((20, 30, 60, 50), "coin", 0, 0.5, mask)]
    drawn = draw_objects(picture(60, 80), one)
    assert drawn.shape == (420, 560, 3)
    assert is_colour(drawn, 0)[349, 140:420].all()
    assert draw_objects(picture(60, 80), one, scale=1).shape == (60, 80, 3)
    large = ellipse(600, 800)
    box = (250, 200, 550, 400)
    less = draw_objects(picture(), [DrawnObject(box, "coin", 0, 0.5, code(large))], longest=400)
    assert less.shape == (300, 400, 3)
    assert is_colour(less, 0)[199, 125:275].all()
    assert (less[150, 200] != GREY).all()
    assert (less[105, 130] == GREY).all()


def test_masks_of_a_large_picture_cost_no_memory_for_each():
    height, width = 3000, 4000
    mask = np.zeros((height, width), bool)
    mask[100:200, 3000:3100] = True
    one = DrawnObject((3000, 100, 3100, 200), "coin", 0, 0.5, code(mask))
    image = np.zeros((height, width, 3), np.uint8)
    tracemalloc.start()
    draw_objects(image, [one] * 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes + 10_000_000


def test_sides_up_to_those_of_a_jpeg():
    assert draw_objects(picture(2, 65_535), [DrawnObject((0, 0, 9, 9), "a", 0)]).shape[1] == 65_535
    with pytest.raises(ValueError, match="65,536 px is longer than can be drawn: 65,535"):
        draw_objects(picture(2, 65_536), [])


@pytest.mark.parametrize("name", ["\udcff.png", "漢字", "שלום", "a\nb\0", "", "W" * 100_000])
def test_names_with_any_character(name):
    drawn = draw_objects(picture(), [DrawnObject((10, 50, 60, 90), name, 0, float("nan"))])
    assert drawn.shape == (600, 800, 3)


def test_a_box_without_a_place_is_left_out():
    nowhere = [
        DrawnObject((float("nan"), 0, 1, 1), "coin", 0),
        DrawnObject((0, 0, 1e400, 1), "", 0),
    ]
    np.testing.assert_array_equal(draw_objects(picture(), nowhere), picture())
    assert draw_objects(picture(1, 1), [], scale=1).shape == (1, 1, 3)
