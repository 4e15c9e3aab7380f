"""Small encoded videos in class folders, and runs on them."""

import wave

import av
import numpy as np
import pytest

from eva_engine.config import OptimizerConfig, RunConfig
from eva_video.config import AugmentConfig, DataConfig, ModelConfig, VideoConfig

COLOURS = {"blue": 2, "green": 1, "red": 0}


@pytest.fixture(scope="session")
def write_frames():
    """Function: write frames (T, H, W, 3) as a video."""

    def write(file, frames, rate=10):
        file.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(file), "w") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "12"})
            (stream.height, stream.width), stream.pix_fmt = frames.shape[1:3], "yuv420p"
            for rgb in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            container.mux(stream.encode())
        return file

    return write


@pytest.fixture(scope="session")
def write_sound():
    """Function: write a file of sound alone."""

    def write(file):
        with wave.open(str(file), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(8000))

    return write


def _moving_noise(channel, chance, frames):
    """Noise that moves, in one colour, (frames, 40, 48, 3)."""
    scene = chance.integers(40, 160, (40, 48, 3))
    scene[:, :, channel] += 60
    return np.stack([np.roll(scene, 2 * number, axis=1) for number in range(frames)]).astype("u1")


@pytest.fixture(scope="session")
def colours(tmp_path_factory, write_frames):
    """Folders `train` and `val` of the classes of `COLOURS`: 8 and 4 videos each."""
    folder = tmp_path_factory.mktemp("colours")
    chance = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, channel in COLOURS.items():
            for number in range(count):
                clip = _moving_noise(channel, chance, frames=9 + number)
                write_frames(folder / split / name / f"{number}.mp4", clip)
    return folder


@pytest.fixture
def config(colours, tmp_path):
    """A recipe with all that is random, on 24 videos: 3 steps an epoch."""
    return VideoConfig(
        model=ModelConfig(variant="eva_debug", image_size=32, frames=4, drop_path_rate=0.2,
                          init_checkpoint="eva_debug"),
        data=DataConfig(train=str(colours / "train"), val=str(colours / "val")),
        augment=AugmentConfig(flip=0.5, jitter_each="frame", mixup=0.8, cutmix=1.0,
                              pairing="permute"),
        optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=0.5, layer_decay=0.8),
        run=RunConfig(
            output=tmp_path / "run", epochs=2, batch_size=4, accumulate=2, workers=0,
            tensorboard=False, ema_decay=0.9, checkpoint_every=1, keep_checkpoints=9, log_every=1,
            evaluate_every=0,
        ),
    )  # fmt: skip
