"""A classifier of clips with random weights, its file, and videos of noise."""

import numpy as np
import pytest
import torch
from torch import nn

from eva_engine.checkpoints.files import save_weights
from eva_video.model.classifier import build_video_classifier

CLASSES = ("clap", "jump", "swim", "a class with a name that is much too long for a small video")


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of 4 classes, 4 frames and 32 px that notes its training."""
    torch.manual_seed(2)
    model = build_video_classifier("eva_debug", num_classes=4, frames=4, img_size=32)
    nn.init.normal_(model.head.weight, std=0.4)
    nn.init.normal_(model.pos_embed)
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    data = {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.25]}
    config = {"model": {"frames": 4}, "data": data, "class_names": CLASSES}
    save_weights(model.state_dict(), file, config)
    return file


@pytest.fixture(scope="session")
def film(tmp_path_factory, write_frames):
    """A video of 45 frames, ten a second, whose colours change every second."""
    chance = np.random.default_rng(3)
    coarse = chance.integers(0, 256, (5, 4, 5, 3), dtype=np.uint8)
    frames = coarse.repeat(10, axis=1).repeat(10, axis=2).repeat(10, axis=0)[:45]
    return write_frames(tmp_path_factory.mktemp("film") / "film.mp4", frames)
