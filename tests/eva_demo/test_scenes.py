"""The digit scenes: their description is what is in the image."""

import cv2
import numpy as np
import pytest

from eva_demo import scenes as digit_scenes
from eva_demo import sources
from eva_demo.scenes import SceneGenerator


@pytest.fixture(scope="module")
def scenes():
    """60 scenes of each split, at the default settings."""
    generators = {split: SceneGenerator(split) for split in ("train", "val")}
    return {split: [maker.make(i) for i in range(60)] for split, maker in generators.items()}


def test_scans_equal_scikit_learns():
    from sklearn.datasets import load_digits

    scans, labels = sources.load_digit_scans()
    np.testing.assert_array_equal(scans * 16, load_digits().images)
    np.testing.assert_array_equal(labels, load_digits().target)


def test_golden_scene():
    """SCENE_VERSION must change together with the scenes, or old datasets pass for new ones."""
    scene = SceneGenerator("train").make(2)
    assert digit_scenes.SCENE_VERSION == 1
    assert [digit.digit_index for digit in scene.instances] == [927, 1218, 1186, 1066, 597]
    assert [digit.full_area for digit in scene.instances] == [771, 280, 1450, 940, 340]


def test_splits_share_neither_digits_nor_photographs(scenes):
    photos = {split: {scene.background for scene in made} for split, made in scenes.items()}
    assert not photos["train"] & photos["val"]
    assert {"chelsea", "retina", "coins", "brick-right"} <= photos["val"]
    for split, digits in (("train", range(1400)), ("val", range(1400, 1797))):
        for scene in scenes[split]:
            assert all(instance.digit_index in digits for instance in scene.instances)
            assert scene.background_class in sources.BACKGROUND_CLASSES


def test_masks_boxes_and_hidden_part(scenes):
    _, labels = sources.load_digit_scans()
    hidden = []
    for scene in scenes["train"] + scenes["val"]:
        assert 2 <= len(scene.instances) <= 5
        claimed = np.sum([instance.mask for instance in scene.instances], axis=0)
        assert claimed.max() == 1  # no pixel belongs to two digits
        for instance in scene.instances:
            assert instance.category == labels[instance.digit_index]
            ys, xs = np.nonzero(instance.mask)
            bounds = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            np.testing.assert_array_equal(instance.box, bounds)
            hidden.append(1 - instance.mask.sum() / instance.full_area)
        assert hidden[-1] == 0  # the last one lies on top
    assert 0.05 < max(hidden) <= 0.15


def test_ink_contrasts_with_its_ground(scenes):
    measured = []
    for scene in scenes["train"] + scenes["val"]:
        luminance = scene.image @ [0.299, 0.587, 0.114]
        digits = np.any([instance.mask for instance in scene.instances], axis=0)
        for instance in scene.instances:
            assert abs(instance.contrast) > 60
            mask = instance.mask.astype(np.uint8)
            ink = cv2.erode(mask, np.ones((5, 5))).astype(bool)
            ring = cv2.dilate(mask, np.ones((7, 7))).astype(bool) & ~digits
            measured.append(abs(luminance[ink].mean() - luminance[ring].mean()))
    # In the image itself, where the ring around a digit is not quite the ground below its box.
    assert np.percentile(measured, 5) > 50


def test_no_room_is_an_error_not_a_loop():
    with pytest.raises(ValueError, match=r"digit_px=\(22, 100\) needs .* size=128"):
        SceneGenerator("train", digit_px=(22, 100))
    crowded = SceneGenerator("train", size=64, digit_px=(28, 30), digits=(12, 12))
    with pytest.raises(ValueError, match="no room for 12 digits"):
        crowded.make(0)
