"""Label maps over pictures, their legend, and as files."""

import numpy as np
from PIL import Image

from eva_report.drawing import label_image, overlay, with_legend

COLORS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def test_overlay_and_legend():
    rgb = np.full((600, 40, 3), 100, np.uint8)
    classes = np.zeros((600, 40), np.uint8)
    classes[:100] = 2
    painted = overlay(rgb, classes, COLORS, opacity=0.5)
    assert painted[0, 0].tolist() == [50, 50, 175]
    assert painted[-1, 0].tolist() == [175, 50, 50]
    np.testing.assert_array_equal(overlay(rgb, classes, COLORS, opacity=0), rgb)
    drawn = with_legend(painted, classes, ("sky", "road", "tree"), COLORS)
    np.testing.assert_array_equal(drawn[:600, :40], painted)
    beside = drawn[:, 40:].reshape(-1, 3).tolist()
    first, last = beside.index([250, 0, 0]), beside.index([0, 0, 250])
    assert first < last  # the largest share on top
    assert [0, 250, 0] not in beside  # no pixel has it
    many = np.arange(60, dtype=np.uint8)[:, None].repeat(40, 1)
    tall = with_legend(rgb, many, [f"class {i}" for i in range(60)], [(i, i, i) for i in range(60)])
    assert tall.shape[0] > 60 * 11


def test_small_pictures_are_enlarged():
    rgb, classes = np.full((60, 40, 3), 100, np.uint8), np.ones((60, 40), np.uint8)
    painted = overlay(rgb, classes, COLORS)
    assert painted.shape == (540, 360, 3)
    assert overlay(rgb, classes, COLORS, scale=1).shape == rgb.shape
    assert with_legend(painted, classes, "abc", COLORS).shape[1] > 360


def test_pixels_to_ignore_stay_unpainted():
    rgb = np.full((4, 4, 3), 100, np.uint8)
    classes = np.full((4, 4), 255, np.uint8)
    painted = overlay(rgb, classes, COLORS, scale=1)
    np.testing.assert_array_equal(painted, rgb)
    assert with_legend(painted, classes, ("sky", "road", "\udcff"), COLORS).shape[1] > 4


def test_a_name_of_any_length_leaves_the_legend_narrow():
    classes = np.zeros((4, 4), np.uint8)
    picture = with_legend(np.zeros((4, 4, 3), np.uint8), classes, ["n" * 10**6], COLORS[:1])
    assert picture.shape[1] < 800


def test_label_images_can_be_read_back(tmp_path):
    classes = np.array([[0, 1], [2, 2]], np.uint8)
    for labels, mode in (((7, 0, 255), "P"), ((7, 1, 400), "I;16")):
        label_image(classes, labels, COLORS).save(tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as stored:
            assert stored.mode == mode
            np.testing.assert_array_equal(np.asarray(stored), np.array(labels)[classes])
            if mode == "P":
                assert stored.convert("RGB").getpixel((0, 0)) == COLORS[0]
