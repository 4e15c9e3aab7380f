"""What a predictor of any project takes."""

from types import GeneratorType

import numpy as np
import pytest
from PIL import Image

from eva_data import inputs
from eva_data.files import DEMO_IMAGE_SUFFIXES
from eva_data.images import UnreadableImageError, read_rgb


def predicted(predict, source):
    return inputs.predicted(
        predict, source, suffixes=DEMO_IMAGE_SUFFIXES, unreadable=UnreadableImageError
    )


def _shape(picture):
    return read_rgb(picture, upright=True).shape


@pytest.fixture
def folder(tmp_path):
    for name, size in (("b.png", (5, 2)), ("sub/a.png", (4, 3))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    return tmp_path


def test_one_picture_or_a_list(folder):
    array = np.zeros((7, 6, 3), np.uint8)
    assert predicted(_shape, array) == (7, 6, 3)
    assert predicted(_shape, folder / "b.png") == (2, 5, 3)
    given = [array, str(folder / "b.png"), Image.new("RGB", (9, 8))]
    assert predicted(_shape, given) == [(7, 6, 3), (2, 5, 3), (8, 9, 3)]
    assert predicted(_shape, tuple(given)) == predicted(_shape, given)
    assert predicted(_shape, []) == []


def test_folders_and_patterns_one_after_another(folder, caplog):
    results = predicted(_shape, folder)
    assert isinstance(results, GeneratorType)
    assert list(results) == [(folder / "b.png", (2, 5, 3)), (folder / "sub/a.png", (3, 4, 3))]
    assert "broken.jpg" in caplog.text
    assert list(predicted(_shape, f"{folder}/*/*.png")) == [(folder / "sub/a.png", (3, 4, 3))]
    with pytest.raises(ValueError, match=r"\*\.gif holds no files that end in \.bmp, \.gif"):
        predicted(_shape, f"{folder}/*.gif")


@pytest.mark.parametrize("source", ["https://a.org/b.jpg", None, 0, ["a.jpg", None]])
def test_what_is_no_image_is_refused(source):
    with pytest.raises(ValueError, match=r"b\.jpg|None|0"):
        predicted(lambda one: one, source)
