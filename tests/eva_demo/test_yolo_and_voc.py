"""The digit scenes in YOLO's and VOC's form: both are written, checked and found damaged."""

import numpy as np
import pycocotools.mask as mask_api
import pytest

from eva_demo import data_set
from eva_demo.formats.format import scene_generator
from eva_demo.formats.yolo import outline

SIZES = {"train": 3, "val": 2, "size": 64, "seed": 3}


@pytest.fixture
def made(tmp_path):
    root = tmp_path / "demo"
    data_set.make_demo_data(root, data_set.Settings(formats=("voc", "yolo"), **SIZES))
    return root


def test_damage_is_found(made):
    assert "every" not in str(data_set.check_demo_data(made, ["voc", "yolo"]))
    (made / "yolo/labels/val/000001.txt").write_text("0 0.5 0.5 0 0.1\n")
    with pytest.raises(ValueError, match="empty box in image 1"):
        data_set.check_demo_data(made, ["yolo"])
    file = made / "voc/Annotations/train_000002.xml"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ValueError, match=r"train_000002\.xml.* line \d+"):
        data_set.check_demo_data(made, ["voc"])


def test_an_outline_has_the_box_and_nearly_the_pixels_of_its_mask():
    for instance in scene_generator("train", 128, 0).scene(0).instances:
        corners = np.array(outline(instance.mask))
        assert [*corners.min(0), *corners.max(0)] == instance.box.tolist()
        code = mask_api.frPyObjects([corners.ravel().tolist()], 128, 128)
        drawn = mask_api.decode(code)[..., 0].astype(bool)
        both = (drawn & instance.mask).sum() / (drawn | instance.mask).sum()
        assert both > 0.85


def test_a_hole_stays_a_hole():
    mask = np.zeros((20, 20), bool)
    mask[2:18, 2:18] = True
    mask[6:14, 6:14] = False
    drawn = mask_api.decode(
        mask_api.frPyObjects([np.array(outline(mask)).ravel().tolist()], 20, 20)
    )[..., 0]
    assert drawn[10, 10] == 0
    assert drawn[4, 4] == 1
