"""Pictures of other depths: read as OpenCV reads them in training, or refused."""

import cv2
import numpy as np
import pytest
from PIL import Image

from eva_data.images import read_rgb
from eva_segmentation.inference.predictor import Predictor

SHAPE = (40, 33)


@pytest.fixture
def deep(tmp_path):
    """Function: a file of a name with 16 bits, in grey or in colours."""

    def make(name, channels=()):
        pixels = np.random.default_rng(0).integers(0, 65536, (*SHAPE, *channels), np.uint16)
        path = tmp_path / name
        if name.startswith("big"):
            size = SHAPE[::-1]
            Image.frombytes("I;16B", size, pixels.astype(">u2").tobytes()).save(path)
        elif channels:
            assert cv2.imwrite(str(path), pixels)
        else:
            Image.fromarray(pixels).save(path)
        return path

    return make


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("grey.png", ()),
        ("grey.tif", ()),
        ("big.tif", ()),
        ("colours.png", (3,)),
        ("transparent.png", (4,)),
    ],
)
def test_16_bits_are_read_as_in_training(deep, name, channels):
    path = deep(name, channels)
    expected = cv2.imread(str(path))[:, :, ::-1]
    found = read_rgb(path, upright=True)
    assert found.dtype == np.uint8
    assert len(np.unique(found)) > 200  # not clipped to white
    np.testing.assert_array_equal(found, expected)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(read_rgb(picture, upright=True), expected)


def test_16_bit_colours_of_a_tiff_differ_by_rounding_alone(deep):
    path = deep("colours.tif", (3,))
    expected = cv2.imread(str(path))[:, :, ::-1]
    np.testing.assert_allclose(
        read_rgb(path, upright=True).astype(int), expected.astype(int), atol=1
    )


def test_the_predictor_reads_them_alike(deep, tiny_run, tmp_path):
    run = tiny_run / "run"
    predictor = Predictor.from_config(run / "tiny.py", weights=run / "iter_3.pth", device="cpu")
    path = deep("grey.png")
    expected = predictor(np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1]))
    with Image.open(path) as picture:
        np.testing.assert_array_equal(predictor(picture), expected)
    np.testing.assert_array_equal(predictor(path), expected)
    with pytest.raises(ValueError, match=r"^image holds fractions a pixel"):
        predictor(Image.new("F", SHAPE))
