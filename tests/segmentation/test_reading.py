"""What training reads: pictures and label maps that do not fit, are damaged, huge or no files."""

import cv2
import numpy as np
import pytest
from mmseg.registry import TRANSFORMS
from PIL import Image

from eva_data.images import read_image
from eva_data.label_maps import LabelMapError

SHAPE = (24, 30)


@pytest.fixture
def load():
    """Function: the transforms of a recipe that read, applied to a picture and a label map."""

    def run(image, label_map, **options):
        steps = [{"type": "LoadPicture"}, {"type": "LoadCheckedAnnotations"}]
        results = {
            "img_path": str(image),
            "seg_map_path": str(label_map),
            "reduce_zero_label": False,
            "label_map": None,
            "seg_fields": [],
        }
        for step in steps:
            results = TRANSFORMS.build(step | options).transform(results)
        return results

    return run


@pytest.fixture
def pair(tmp_path):
    """A picture in JPEG and its label map."""
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (*SHAPE, 3), np.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(generator.integers(0, 5, SHAPE, np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.jpg", tmp_path / "a.png"


def test_pictures_are_those_of_opencv_and_of_the_one_decoder(pair, load, tmp_path):
    image, label_map = pair
    deep = np.random.default_rng(0).integers(0, 65536, SHAPE, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.open(image).save(tmp_path / "a.bmp")
    for path in (image, tmp_path / "deep.png", tmp_path / "a.bmp"):
        found = load(path, label_map)["img"]
        np.testing.assert_array_equal(found, cv2.imread(str(path)))
        np.testing.assert_array_equal(found[:, :, ::-1], read_image(path, upright=True))
        assert found.flags.c_contiguous
    assert (load(tmp_path / "deep.png", label_map)["img"][:, :, 0] == deep >> 8).all()


def test_labels_that_would_become_others_are_refused(pair, load, tmp_path):
    Image.fromarray(np.full(SHAPE, 300, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(LabelMapError, match=r"deep\.png .*300"):
        load(pair[0], tmp_path / "deep.png")
    Image.fromarray(np.full(SHAPE, 3, np.uint16)).save(tmp_path / "deep.png")
    assert (load(pair[0], tmp_path / "deep.png")["gt_seg_map"] == 3).all()
    Image.new("RGB", SHAPE[::-1]).save(tmp_path / "colours.png")
    with pytest.raises(LabelMapError, match="holds colours"):
        load(pair[0], tmp_path / "colours.png")
