"""Pictures of other depths: read as OpenCV reads them in training, or refused."""

import cv2
import numpy as np
import pytest
from PIL import Image

from eva_data.pictures import UnreadableImageError, read_rgb
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


def test_a_sideways_picture_of_16_bits_is_turned(tmp_path):
    picture = Image.fromarray(np.arange(0, 60000, 10000, np.uint16).reshape(2, 3))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "x.png", exif=exif)
    found = read_rgb(tmp_path / "x.png", upright=True)
    assert found[:, :, 0].tolist() == [[117, 0], [156, 39], [195, 78]]
    np.testing.assert_array_equal(found, cv2.imread(str(tmp_path / "x.png"))[:, :, ::-1])


@pytest.mark.parametrize(
    ("kind", "what"), [(np.int32, "32 bits a pixel"), (np.float32, "fractions a pixel")]
)
def test_32_bits_and_fractions_are_refused(kind, what, tmp_path):
    picture = Image.fromarray(np.arange(6).reshape(2, 3).astype(kind))
    picture.save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImageError, match=rf"^\S*x\.tif holds {what}; save it with"):
        read_rgb(tmp_path / "x.tif", upright=True)
    with pytest.raises(UnreadableImageError, match=f"^image holds {what}"):
        read_rgb(picture, upright=True)


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
