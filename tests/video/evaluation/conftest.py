"""Videos of noise in class folders, and a classifier of them with random weights."""

import numpy as np
import pytest
import torch
from torch import nn

from eva_engine.checkpoints.files import save_weights
from eva_video.model.classifier import build_video_classifier

CLASSES = ("clap", "jump", "swim")


@pytest.fixture(scope="session")
def videos(tmp_path_factory, write_frames):
    """11 videos of 3 to 19 frames, wide and high, in folders of three classes."""
    folder, chance = tmp_path_factory.mktemp("videos"), np.random.default_rng(1)
    for name, count in zip(CLASSES, (4, 5, 2), strict=True):
        for number in range(count):
            size = (50, 40) if number % 2 else (36, 64)
            coarse = chance.integers(0, 256, (3 + 4 * number, 3, 3, 3), dtype=np.uint8)
            frames = coarse.repeat(22, axis=1).repeat(22, axis=2)[:, : size[0], : size[1]]
            write_frames(folder / name / f"{number}.mp4", frames)
    return folder


@pytest.fixture(scope="session")
def patterns(tmp_path_factory, write_frames):
    """Folders `train` and `val`: 8 and 4 scenes of stripes, of spots and of noise."""
    folder, chance = tmp_path_factory.mktemp("patterns"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, shape in (("noise", (40, 48)), ("spots", (5, 6)), ("stripes", (1, 6))):
            for number in range(count):
                coarse = chance.integers(0, 256, (9 + number, *shape, 1), dtype=np.uint8)
                frames = coarse.repeat(40 // shape[0], axis=1).repeat(48 // shape[1], axis=2)
                write_frames(folder / split / name / f"{number}.mp4", frames.repeat(3, axis=3))
    return folder


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """A classifier of 3 classes, 4 frames and 32 px, and its file, which notes its training."""
    torch.manual_seed(5)
    model = build_video_classifier("eva_debug", num_classes=3, frames=4, img_size=32).eval()
    nn.init.normal_(model.head.weight, std=0.5)
    nn.init.normal_(model.pos_embed)
    file = tmp_path_factory.mktemp("classifier") / "model.safetensors"
    config = {"model": {"frames": 4}, "data": {"std": [0.3, 0.2, 0.25]}, "class_names": CLASSES}
    save_weights(model.state_dict(), file, config)
    return model, file
