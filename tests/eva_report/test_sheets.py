"""Images put together: classes below images, frames side by side, contact sheets."""

import numpy as np
import pytest

from eva_report.demos import Prediction
from eva_report.sheets import (
    annotate,
)

JUMP = Prediction("jump", 0.7)
LONG = "a class with a name that is much too long for a small video"


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
