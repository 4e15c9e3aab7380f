"""Settings of video recipes: what they refuse, on the command line too."""

from dataclasses import replace

import pytest

from eva_video.config import AugmentConfig, DataConfig, ModelConfig

DEBUG = {"variant": "eva_debug", "image_size": 32}


@pytest.mark.parametrize(("kind", "values", "named"), [
    (ModelConfig, {**DEBUG, "frames": 10**6}, "1000000"),
    (ModelConfig, {**DEBUG, "frozen_blocks": 6}, "6"),
    (ModelConfig, {**DEBUG, "class_mapping": "k400"}, "k400"),
    (ModelConfig, {**DEBUG, "init_checkpoint": "x", "class_mapping": "k722"}, "k722"),
    (ModelConfig, {**DEBUG, "full_position_lr": True, "frozen_blocks": 1}, "frozen_blocks=1"),
    (DataConfig, {"train": "a", "sampling": "uniform"}, "uniform"),
    (DataConfig, {"train": "a", "frame_interval": 4}, "4"),
    (AugmentConfig, {"scales": (0.7, 1.0)}, "0.7, 1.0"),
    (AugmentConfig, {"flip": 1.5}, "1.5"),
    (AugmentConfig, {"jitter_each": "video"}, "video"),
])  # fmt: skip
def test_a_setting_that_cannot_be(kind, values, named):
    with pytest.raises(ValueError, match=named):
        kind(**values)


def test_defaults_are_those_of_the_paper():
    data, augment = DataConfig(train="a"), AugmentConfig()
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)
    assert augment.scales == (1.0, 0.875, 0.75, 0.66)
    assert (augment.flip, augment.color_jitter, augment.gray) == (0.5, 0.8, 0.2)
    assert augment.label_smoothing == 0.1


def test_a_batch_that_cannot_be_mixed(config):
    single = replace(config.run, batch_size=1)
    with pytest.raises(ValueError, match="got 1"):
        replace(config, run=single)
    odd = replace(config.run, batch_size=3)
    assert replace(config, run=odd).run.batch_size == 3  # any order of three will do
    with pytest.raises(ValueError, match="got 3"):
        replace(config, run=odd, augment=replace(config.augment, pairing="reverse"))
