"""The digit scenes: their description is what is in the image."""

import pytest

from eva_demo import scenes as digit_scenes
from eva_demo.scenes import SceneGenerator


def test_golden_scene():
    """SCENE_VERSION must change together with the scenes, or old datasets pass for new ones."""
    scene = SceneGenerator("train").make(2)
    assert digit_scenes.SCENE_VERSION == 1
    assert [digit.digit_index for digit in scene.instances] == [927, 1218, 1186, 1066, 597]
    assert [digit.full_area for digit in scene.instances] == [771, 280, 1450, 940, 340]
    assert [digit.mask.sum() for digit in scene.instances] == [673, 280, 1450, 940, 340]
    assert [digit.category for digit in scene.instances] == [2, 7, 9, 9, 7]
    assert scene.instances[0].box.tolist() == [35, 56, 66, 99]
    assert scene.image.mean((0, 1)) == pytest.approx([75.738, 82.169, 87.757], abs=0.05)


def test_no_room_is_an_error_not_a_loop():
    with pytest.raises(ValueError, match=r"digit_px=\(22, 100\) needs .* size=128"):
        SceneGenerator("train", digit_px=(22, 100))
    crowded = SceneGenerator("train", size=64, digit_px=(28, 30), digits=(12, 12))
    with pytest.raises(ValueError, match="no room for 12 digits"):
        crowded.make(0)
