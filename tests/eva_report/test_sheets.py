"""Images put together: classes below images, frames side by side, contact sheets."""

import numpy as np
import pytest
from PIL import Image

from eva_data.video.frames import ArrayVideo
from eva_report.demos import Prediction
from eva_report.sheets import (
    COLUMNS,
    HEIGHT,
    SIDE,
    SheetSection,
    Tile,
    annotate,
    draw_contact_sheet,
    frame_strip,
    strip_of,
)

BACK = (20, 20, 20)
JUMP = Prediction("jump", 0.7)
LONG = "a class with a name that is much too long for a small video"


def tile(color, *, size=(SIDE, SIDE), heading="", name=""):
    return Tile(Image.new("RGB", size, color), heading, name)


@pytest.mark.parametrize(("size", "scale"), [((48, 64), 5), ((200, 640), 1)])
def test_images_are_kept_and_the_classes_stand_below(size, scale):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    drawn = annotate(rgb, [JUMP, Prediction(LONG, 0.2)], heading="0:01.5")
    height, width = size[0] * scale, size[1] * scale
    assert drawn.shape[1] == width
    assert np.array_equal(drawn[:height], rgb.repeat(scale, axis=0).repeat(scale, axis=1))
    strip = drawn[height:].astype(int)
    blue = strip[..., 2] - strip[..., 0] > 60  # the bar of the first class
    assert 0.6 < blue.any(axis=0).mean() < 0.75
    assert (strip[:, [0, -1]] == strip[0, 0]).all()  # nothing runs over the edge
    assert annotate(rgb, [], heading="").shape == drawn.shape  # all frames have one size
    assert len(drawn) - len(annotate(rgb, [JUMP])) > 15  # without a heading there is no line for it


def test_frames_are_spread_over_the_video_and_fit():
    frames = np.zeros((9, 32, 40, 3), np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None]
    strip = np.asarray(strip_of(ArrayVideo(frames)))
    assert strip.shape == (6 * 32, 4 * 6 * 40 + 3 * 4, 3)
    assert strip[0, [0, 250, 500, 750], 0].tolist() == [0, 3, 5, 8]
    assert strip[0, 242].tolist() == [255] * 3  # between two frames
    assert np.asarray(strip_of(ArrayVideo(frames[:1]))).shape == (192, 240, 3)
    for size, high in (((1080, 1920), 178), ((240, 320), HEIGHT)):
        large = frame_strip(np.zeros((4, *size, 3), np.uint8))
        assert (large.width <= 1280, large.height) == (True, high)


def test_tiles_fill_rows_from_the_left():
    colors = [(255, 20 * number, 0) for number in range(COLUMNS + 2)]
    sheet = np.asarray(draw_contact_sheet([SheetSection("", [tile(color) for color in colors])]))
    left = 8 + np.arange(COLUMNS) * (SIDE + 8)
    top, below = 44 + 8, (len(sheet) - 44) // 2
    for number, color in enumerate(colors):
        y, x = top + below * (number // COLUMNS), left[number % COLUMNS]
        assert (sheet[y : y + SIDE, x : x + SIDE] == color).all()
        assert (sheet[y : y + SIDE, x - 8 : x] == BACK).all()
    assert (sheet[top + below :, left[2] :] == BACK).all()


@pytest.mark.parametrize("size", [(40, 20), (2000, 1000), (2, 1)])
def test_an_image_keeps_its_proportions(size):
    sheet = np.asarray(draw_contact_sheet([SheetSection("", [tile((0, 255, 0), size=size)])]))
    green = (sheet == (0, 255, 0)).all(axis=2)
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    assert (len(rows), len(columns)) == (SIDE // 2, SIDE)
    assert rows[0] == 44 + 8 + SIDE // 4
