"""Settings of video recipes: what they refuse, on the command line too."""

import pytest

from eva_video.config import AugmentConfig, DataConfig, ModelConfig

DEBUG = {"variant": "eva_debug", "image_size": 32}


@pytest.mark.parametrize(("kind", "values", "named"), [
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
