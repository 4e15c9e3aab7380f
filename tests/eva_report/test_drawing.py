"""Annotated images: objects, label maps, colors, sizes, and what no image breaks."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from eva_report.drawing import (
    DrawnObject,
    class_color,
    draw_objects,
    label_image,
    overlay,
    with_legend,
)

GREY = 128
COLORS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def image(height=600, width=800):
    return np.full((height, width, 3), GREY, np.uint8)


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
    found = (drawn == class_color(3)).all(axis=2)
    assert found[300, 98:103].any()
    assert found[398:403, 200].any()
    assert not found[250:350, 150:250].any()
    assert found[170:198, 105:140].any()  # the name, above the box


def test_masks_are_painted_where_they_are():
    objects = [
        DrawnObject((250, 200, 550, 400), "", 2, None, code(ellipse(600, 800))),
        DrawnObject((10, 10, 50, 50), "b", 7, 0.5),
        DrawnObject((0, 0, 5, 5), "empty", 1, 0.5, code(np.zeros((600, 800), bool))),
    ]
    drawn = draw_objects(image(), objects)
    expected = 0.6 * GREY + 0.4 * np.array(class_color(2))
    assert np.abs(drawn[300, 400] - expected).max() <= 1
    assert (drawn[240, 262] == GREY).all()  # in the box, beside the mask
    with pytest.raises(ValueError, match="300"):
        draw_objects(image(), [DrawnObject((0, 0, 9, 9), "", 0, None, code(np.ones((300, 400))))])


def test_keypoints_are_drawn_where_an_object_has_some():
    edges = [(1, 2)]
    bare = DrawnObject((100, 200, 300, 400), "coin", 3, 0.5, None, (), edges)
    points = bare._replace(keypoints=(150, 250, 2, 250, 350, 1))
    before, after = (draw_objects(image(), [item]) for item in (bare, points))
    for x, y in ((150, 250), (200, 300), (250, 350)):
        assert (before[y, x] == GREY).all()
        assert (after[y, x] == class_color(3)).all()


def test_small_images_are_enlarged_and_large_ones_made_smaller_if_asked():
    one = [DrawnObject((20, 30, 60, 50), "coin", 0, 0.5)]
    assert draw_objects(image(60, 80), one).shape == (420, 560, 3)
    one = [DrawnObject((250, 200, 550, 400), "coin", 0, 0.5, code(ellipse(600, 800)))]
    less = draw_objects(image(), one, longest=400)
    assert less.shape == (300, 400, 3)
    assert (less[150, 200] != GREY).all()
    assert (less[105, 130] == GREY).all()
    with pytest.raises(ValueError, match="65,536"):  # no JPEG has such a side
        draw_objects(image(2, 65_536), [])


@pytest.mark.parametrize("name", ["\udcff.png", "漢字שלום", "a\nb\0", "", "W" * 100_000])
def test_names_with_any_character(name):
    drawn = draw_objects(image(), [DrawnObject((10, 50, 60, 90), name, 0, float("nan"))])
    assert drawn.shape == (600, 800, 3)


@pytest.mark.parametrize(
    "box", [(float("nan"), 0, 1, 1), (900, 900, 950, 950), (-50, -50, 2000, 2000), (30, 20, 10, 10)]
)
def test_boxes_beyond_the_image(box):
    assert draw_objects(image(), [DrawnObject(box, "coin", 0)]).shape == (600, 800, 3)


def test_overlay_and_legend():
    rgb, classes = np.full((600, 40, 3), 100, np.uint8), np.zeros((600, 40), np.uint8)
    classes[:100], classes[100:110] = 2, 255  # a value without a color stays unpainted
    painted = overlay(rgb, classes, COLORS, opacity=0.5)
    assert painted[[0, 105, 599], 0].tolist() == [[50, 50, 175], [100] * 3, [175, 50, 50]]
    np.testing.assert_array_equal(overlay(rgb, classes, COLORS, opacity=0), rgb)
    drawn = with_legend(painted, classes, ("sky", "road", "\udcff" * 10**4), COLORS)
    np.testing.assert_array_equal(drawn[:600, :40], painted)
    assert drawn.shape[1] < 800
    beside = drawn[:, 40:].reshape(-1, 3).tolist()
    assert beside.index([250, 0, 0]) < beside.index([0, 0, 250])  # the largest share on top
    assert [0, 250, 0] not in beside  # no pixel has it
    many = np.arange(60, dtype=np.uint8)[:, None].repeat(40, 1)
    tall = with_legend(rgb, many, [f"class {i}" for i in range(60)], [(i, i, i) for i in range(60)])
    assert tall.shape[0] > 60 * 11
    assert overlay(rgb[:60], classes[:60], COLORS).shape == (540, 360, 3)


def test_label_images_can_be_read_back(tmp_path):
    classes = np.array([[0, 1], [2, 2]], np.uint8)
    for labels, mode in (((7, 0, 255), "P"), ((7, 1, 400), "I;16")):
        label_image(classes, labels, COLORS).save(tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as stored:
            assert stored.mode == mode
            np.testing.assert_array_equal(np.asarray(stored), np.array(labels)[classes])
            if mode == "P":
                assert stored.convert("RGB").getpixel((0, 0)) == COLORS[0]
