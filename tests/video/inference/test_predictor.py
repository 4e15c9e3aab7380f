"""Predictions for videos in Python, beside the model and the frames themselves."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from eva_data.kinetics import kinetics_classes
from eva_data.video.decoding import VideoFile
from eva_data.video.streams import VideoReader
from eva_engine.checkpoints.files import save_weights
from eva_video.data.clips import Sampling
from eva_video.data.transforms import CropsTransform, Normalise
from eva_video.inference.predictor import VideoPredictor
from eva_video.model.classifier import build_video_classifier, load_video_classifier

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)  # which the weights note


def expected(weights, frames, *, crops=1, clips=1):
    """Mean probabilities of all views of frames (N, H, W, 3)."""
    model = load_video_classifier(weights)
    transform = CropsTransform(32, crops=crops, normalise=Normalise(mean=MEAN, std=STD))
    found = []
    for chosen in Sampling(frames=4).fixed(len(frames), clips=clips):
        with torch.no_grad():
            found += model(transform(frames[chosen])).softmax(1)
    return torch.stack(found).mean(0).numpy()


@pytest.fixture
def frames(film):
    return np.stack([frame.rgb for frame in VideoReader(film)])


@pytest.mark.parametrize(("batch_size", "stride"), [(1, 1), (3, None)])
def test_windows(weights, film, frames, batch_size, stride):
    predictor = VideoPredictor.from_weights(weights, device="cpu", batch_size=batch_size)
    found = list(predictor.windows(film, seconds=2, stride=stride))
    assert [(one.start, one.end) for one in found] == [
        pytest.approx(pair) for pair in ((0, 2), (1, 3), (2, 4), (2.5, 4.5))
    ]
    for one in found:
        first = round(one.start * 10)
        wanted = expected(weights, frames[first : first + 20])
        np.testing.assert_allclose(one.probabilities, wanted, atol=1e-6)
    different = [one.probabilities for one in found]
    assert np.abs(different[0] - different[2]).max() > 1e-3


def test_a_video_is_decoded_once_for_all_windows(weights, film, monkeypatch):
    decoded = []

    def iterate(self, indices, decode=VideoFile.iterate_frames):
        for index, rgb in decode(self, indices):
            decoded.append(index)
            yield index, rgb

    monkeypatch.setattr(VideoFile, "iterate_frames", iterate)
    predictor = VideoPredictor.from_weights(weights, device="cpu", batch_size=1)
    assert len(list(predictor.windows(film, seconds=2, stride=0.5))) == 6
    assert decoded == sorted({*decoded})


def test_frames_are_chosen_as_in_the_training(weights, film, tmp_path, monkeypatch):
    config = {"model": {"frames": 4}, "data": {"sampling": "dense", "frame_interval": 3}}
    save_weights(
        load_file(weights), tmp_path / "dense.safetensors", config | {"class_names": [*"abcd"]}
    )
    predictor = VideoPredictor.from_weights(tmp_path / "dense.safetensors", device="cpu")
    asked = []

    def iterate(self, indices, decode=VideoFile.iterate_frames):
        asked.extend(indices)
        return decode(self, indices)

    monkeypatch.setattr(VideoFile, "iterate_frames", iterate)
    predictor(film)
    assert asked == [18, 21, 24, 27]  # the middle of the 36 places of 10 frames among 45


def test_names_of_the_classes(tmp_path, weights, film, caplog):
    model = build_video_classifier("eva_debug", num_classes=400, frames=4, img_size=32)
    save_weights(model.state_dict(), tmp_path / "k.safetensors", {"model": {"frames": 4}})
    predictor = VideoPredictor.from_weights(tmp_path / "k.safetensors", device="cpu")
    assert predictor.class_names == kinetics_classes("k400")
    model = build_video_classifier("eva_debug", num_classes=2, frames=4, img_size=32)
    save_weights(model.state_dict(), tmp_path / "own.safetensors", {"model": {"frames": 4}})
    predictor = VideoPredictor.from_weights(tmp_path / "own.safetensors", device="cpu")
    assert predictor.class_names == ("class 0", "class 1")
    assert "own.safetensors" in caplog.text
    predictor = VideoPredictor.from_weights(
        tmp_path / "own.safetensors", classes=["a", "b"], device="cpu"
    )
    assert {one.name for one in predictor(film)} == {"a", "b"}
    with pytest.raises(ValueError, match=r"3 .* 2"):
        VideoPredictor.from_weights(tmp_path / "own.safetensors", classes=["a", "b", "c"])
