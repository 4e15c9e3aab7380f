"""Features of clips: of any weights, equal to the models that they come from."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eva_backbone import VisionTransformer, build_vit
from eva_backbone.variants import CLIP_MEAN, IMAGENET_MEAN, IMAGENET_STD
from eva_data.video.streams import VideoReader
from eva_video.model.classifier import build_video_classifier
from eva_video.model.features import ClipFeatureExtractor


@pytest.fixture
def classifier(tmp_path, randomise):
    """A classifier of 4 frames at 32 px, and its file as a run writes it."""
    model = build_video_classifier("eva_debug", num_classes=3, frames=4, img_size=32)
    file = tmp_path / "model.safetensors"
    config = {"model": {"frames": 4}, "data": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}}
    save_file(randomise(model).state_dict(), file, metadata={"config": json.dumps(config)})
    return model.eval(), file


@pytest.fixture
def video(tmp_path, write_frames):
    """A file of 6 frames of 48 x 64 px that become lighter, each one from left to right."""
    grey = 10 * np.arange(6)[:, None, None] + 2 * np.arange(64) + np.arange(48)[:, None]
    frames = np.repeat(grey[..., None], 3, axis=3).astype(np.uint8)
    return write_frames(tmp_path / "lighter.mp4", frames)


def test_a_clip_s_features_are_what_the_head_classifies(classifier):
    model, file = classifier
    extract = ClipFeatureExtractor.from_weights(file, device="cpu")
    assert (extract.vit.frames, extract.pooling, extract.image_size) == (4, "mean", 32)
    clips = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(extract(clips), model.pool(clips))
        tokens = model.forward_features(clips)[:, 1:]
    torch.testing.assert_close(extract.tokens(clips), tokens.reshape(2, 4, 4, 4, 128))
    frames = model.fc_norm(tokens.reshape(2, 4, 16, 128).mean(2)).detach()
    torch.testing.assert_close(extract.frames(clips), frames)


def test_of_files(classifier, video):
    """The centres of the segments, the central square, normalised: put together by hand."""
    extract = ClipFeatureExtractor.from_weights(classifier[1], device="cpu")
    all_frames = np.stack([frame.rgb for frame in VideoReader(video)])
    chosen = torch.from_numpy(all_frames[[0, 2, 3, 5]]).permute(0, 3, 1, 2).float()
    side = torch.nn.functional.interpolate(chosen, size=(32, 43), mode="bilinear")[..., 5:37]
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(extract.read(video), (side / 255 - mean) / std, atol=0.02, rtol=0)
    clips = extract.read(video)[None]
    assert clips.std(dim=4).min() > 0.1  # another crop would be another clip
    torch.testing.assert_close(extract([video, str(video)]), extract(clips).repeat(2, 1))
    torch.testing.assert_close(extract.frames(video), extract.frames(clips))
    assert extract.tokens(video).shape == (1, 4, 4, 4, 128)


@pytest.mark.parametrize(("final_norm", "pooling"), [(True, "cls"), (False, "mean")])
def test_weights_of_pictures(tmp_path, randomise, final_norm, pooling):
    """Each frame with the positions of a picture; a still clip of one frame is the picture."""
    picture = randomise(build_vit("eva_debug", img_size=32, final_norm=final_norm)).eval()
    torch.save(picture.state_dict(), tmp_path / "picture.pt")
    extract = ClipFeatureExtractor.from_weights(tmp_path / "picture.pt", frames=1, device="cpu")
    assert extract.mean == CLIP_MEAN
    image = torch.randn(2, 3, 32, 32)
    tokens = picture(image).detach()
    expected = tokens[:, 0] if pooling == "cls" else tokens[:, 1:].mean(1)
    torch.testing.assert_close(extract(image[:, None]), expected)
    default = ClipFeatureExtractor.from_weights(tmp_path / "picture.pt", device="cpu")
    assert default.vit.frames == 8
    assert isinstance(default.vit, VisionTransformer)
