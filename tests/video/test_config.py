"""Settings of video recipes: what they refuse, on the command line too."""

from dataclasses import replace

import pytest

from eva_video.config import AugmentConfig, DataConfig, ModelConfig

DEBUG = {"variant": "eva_debug", "image_size": 32}


@pytest.mark.parametrize(("kind", "values", "message"), [
    (ModelConfig, {**DEBUG, "frames": 0}, "frames must be at least 1, got 0"),
    (ModelConfig, {**DEBUG, "frames": 10**6}, "frames must be at most 1024, got 1000000"),
    (ModelConfig, {**DEBUG, "frozen_blocks": -1}, "frozen_blocks must be at least 0, got -1"),
    (ModelConfig, {**DEBUG, "frozen_blocks": 6}, "frozen_blocks must be at most 5, .* got 6"),
    (ModelConfig, {**DEBUG, "frozen_blocks": 5, "activation_checkpointing": True},
     "activation_checkpointing has no effect with frozen_blocks=5"),
    (ModelConfig, {**DEBUG, "class_mapping": "k400"},
     "class_mapping=k400 has no effect without init_checkpoint"),
    (ModelConfig, {**DEBUG, "init_checkpoint": "x", "class_mapping": "k722"},
     r"class_mapping must be one of k400, k600, k700 or a \.npy file, got 'k722'"),
    (ModelConfig, {**DEBUG, "full_position_lr": True, "frozen_blocks": 1},
     "full_position_lr has no effect with frozen_blocks=1"),
    (ModelConfig, {**DEBUG, "image_size": 30}, "patch 8 of eva_debug does not divide 30"),
    (DataConfig, {"train": "a", "backend": "decord"},
     "backend must be one of pyav, torchcodec, got 'decord'"),
    (DataConfig, {"train": "a", "sampling": "uniform"}, "sampling must be one of tsn, dense"),
    (DataConfig, {"train": "a", "frame_interval": 4},
     "frame_interval=4 has no effect on sampling=tsn"),
    (DataConfig, {"train": "a", "sampling": "dense", "frame_interval": 0},
     "frame_interval must be at least 1, got 0"),
    (DataConfig, {"train": "a", "val_root": "b"}, "val_root=b has no effect without val"),
    (DataConfig, {"train": "a", "std": (0, 1, 1)}, "std must be three finite numbers above 0"),
    (AugmentConfig, {"scales": ()}, "scales must be falling numbers"),
    (AugmentConfig, {"scales": (0.7, 1.0)}, "scales must be falling numbers"),
    (AugmentConfig, {"scales": (1.2, 1.0)}, "scales must be falling numbers"),
    (AugmentConfig, {"scales": (1.0, float("nan"))}, "scales must be falling numbers"),
    (AugmentConfig, {"flip": 1.5}, r"flip must be in \[0, 1\], got 1.5"),
    (AugmentConfig, {"gray": -0.1}, r"gray must be in \[0, 1\], got -0.1"),
    (AugmentConfig, {"jitter_each": "video"}, "jitter_each must be one of clip, frame"),
    (AugmentConfig, {"jitter_each": "frame", "color_jitter": 0.0},
     "jitter_each=frame has no effect with color_jitter=0"),
    (AugmentConfig, {"pairing": "permute"}, "pairing=permute has no effect without mixup"),
    (AugmentConfig, {"pairing": "random", "mixup": 1.0}, "pairing must be one of reverse, permute"),
])  # fmt: skip
def test_a_setting_that_cannot_be(kind, values, message):
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_defaults_are_those_of_the_paper():
    data, augment = DataConfig(train="a"), AugmentConfig()
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)
    assert augment.scales == (1.0, 0.875, 0.75, 0.66)
    assert (augment.flip, augment.color_jitter, augment.gray) == (0.5, 0.8, 0.2)
    assert augment.label_smoothing == 0.1


def test_learning_rate_of_positions_without_layer_decay(config):
    model, optimizer = replace(config.model, full_position_lr=True), config.optimizer
    with pytest.raises(ValueError, match=r"full_position_lr has no effect with .*layer_decay=1"):
        replace(config, model=model, optimizer=replace(optimizer, layer_decay=1.0))


def test_a_batch_that_cannot_be_mixed(config):
    single = replace(config.run, batch_size=1)
    with pytest.raises(ValueError, match="no effect on a batch of one sample: set batch_size to 2"):
        replace(config, run=single)
    odd = replace(config.run, batch_size=3)
    assert replace(config, run=odd).run.batch_size == 3  # any order of three will do
    with pytest.raises(ValueError, match="batch_size must be even, got 3"):
        replace(config, run=odd, augment=replace(config.augment, pairing="reverse"))
