"""Classes written below pictures and frames."""

import numpy as np
import pytest
from PIL import Image

from eva_report.demos import Prediction
from eva_report.sheets import annotate

LONG = "a class with a name that is much too long for a small video"


@pytest.mark.parametrize(("size", "scale"), [((48, 64), 5), ((40, 300), 2), ((200, 640), 1)])
def test_frames_are_kept_and_the_text_stands_below(size, scale):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = [Prediction("jump", 0.7), Prediction(LONG, 0.2)]
    picture = annotate(rgb, found, heading="0:01.5")
    height, width = size[0] * scale, size[1] * scale
    assert picture.shape[1] == width
    assert picture.shape[0] > height
    enlarged = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    assert np.array_equal(picture[:height], enlarged)
    strip = picture[height:].astype(int)
    blue = strip[..., 2] - strip[..., 0] > 60  # the bar of the first class
    assert 0.6 < blue.any(axis=0).mean() < 0.75
    shape = annotate(rgb, [], heading="0:00.0").shape
    assert shape == picture.shape  # all frames of a video have one size
    assert (strip[:, :4] == strip[0, 0]).all()  # nothing runs over the edge
    assert (strip[:, -4:] == strip[0, 0]).all()


def test_letters_of_other_languages():
    """A letter that the font lacks would be drawn as a box, the same for each."""
    rgb = np.zeros((40, 320, 3), np.uint8)
    drawn_ones = [
        annotate(rgb, [Prediction(letter, 0.0)], heading="", rows=1).tobytes() for letter in "ößжλé"
    ]
    assert len({*drawn_ones}) == 5


def test_a_readable_picture(tmp_path):
    """Letters at the smallest size, as high as they have to be."""
    rgb = np.zeros((24, 32, 3), np.uint8)
    picture = annotate(rgb, [Prediction("jump", 0.7)], heading="0:01.5", rows=1)
    Image.fromarray(picture).save(tmp_path / "small.png")
    assert picture.shape[1] == 320
    white = (picture[240:] > 220).all(axis=2).any(axis=1).sum()
    assert white >= 9  # rows of pixels of the name


def test_without_a_heading_there_is_no_line_for_it():
    rgb = np.zeros((20, 320, 3), np.uint8)
    found = [Prediction("jump", 0.7)]
    with_one = annotate(rgb, found, heading="0:01.5", rows=1)
    without = annotate(rgb, found, rows=1)
    assert len(with_one) - len(without) == 21
    assert np.array_equal(without[25:], with_one[46:])  # the class looks the same


@pytest.mark.parametrize("size", [(1, 1), (3000, 10), (10, 3000)])
def test_a_picture_of_any_shape_has_room_for_names(size):
    rgb = np.full((*size, 3), 200, np.uint8)
    picture = annotate(rgb, [Prediction("jump", 0.7)], rows=1)
    height = size[0] * (320 if size == (1, 1) else 1)
    assert picture.shape[1] == max(320, size[1])
    assert (picture[:height] == 200).all(axis=2).sum() >= size[0] * size[1]
    assert (picture[height:] > 220).all(axis=2).any(axis=1).sum() >= 9  # rows with letters
