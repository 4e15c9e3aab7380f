"""Features of pictures, texts and videos: what the towers give, of what people bring."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.model.loading import load_eva_clip
from eva_data.saving import write_tensors
from eva_data.transforms import evaluation_transform
from eva_data.video.source import open_video


@pytest.fixture(scope="module")
def model(clip_weights):
    return load_eva_clip(clip_weights)


def pixels(picture):
    return evaluation_transform(32, mean=CLIP_MEAN, std=CLIP_STD)(Image.fromarray(picture))


def test_pictures_as_the_tower_gives_them(clip, model, photographs, media):
    """Of arrays, files, and a file that is stored sideways; more of them than a batch has."""
    seen = torch.stack([pixels(photographs[name]) for name in ("cat", "astronaut", "rocket")])
    expected = model.encode_image(seen).detach()
    files = [media / "deep" / "cat.png", str(media / "astronaut.png"), media / "rocket.png"]
    raw = clip.images(files, normalize=False)
    torch.testing.assert_close(raw, expected)
    torch.testing.assert_close(clip.images([*files, *files])[3:], F.normalize(expected, dim=-1))
    torch.testing.assert_close(clip.images(Image.fromarray(photographs["cat"]), normalize=False),
                               expected[:1])  # fmt: skip
    torch.testing.assert_close(clip.images(seen, normalize=False), expected)
    assert raw.dtype == torch.float32
    assert not raw.requires_grad


def test_a_video_is_the_mean_of_frames_that_are_spread_over_it(clip, model, film):
    with open_video(film) as video:
        frames = video.frames([3, 9, 15, 21, 27, 33, 39, 45])
        times = video.times([3, 9, 15, 21, 27, 33, 39, 45])
    each = F.normalize(model.encode_image(torch.stack([pixels(f) for f in frames])), dim=-1)
    found = clip.frames(film)
    assert found.indexes == (3, 9, 15, 21, 27, 33, 39, 45)
    assert found.times == tuple(times)
    torch.testing.assert_close(found.values, each.detach())
    mean = each.mean(dim=0, keepdim=True).detach()
    torch.testing.assert_close(clip.videos(film, normalize=False), mean)
    unit = clip.videos([film, str(film)])
    torch.testing.assert_close(unit, F.normalize(mean, dim=-1).expand(2, -1))


def test_probabilities(clip_weights, clip, tmp_path):
    """Shares for the contrastive loss; each by itself for the sigmoid loss, with its bias."""
    images = F.normalize(torch.randn(2, 16), dim=-1)
    texts = F.normalize(torch.randn(5, 16), dim=-1)
    shares = clip.probabilities(images, texts)
    torch.testing.assert_close(shares, (images @ texts.T / 0.07).softmax(-1))
    state = load_eva_clip(clip_weights).state_dict() | {"text.logit_bias": torch.tensor([-2.0])}
    write_tensors(state, tmp_path / "sigmoid.safetensors")
    other = ClipFeatures.from_weights(tmp_path / "sigmoid.safetensors", device="cpu")
    expected = (images @ texts.T / 0.07 - 2).sigmoid()
    torch.testing.assert_close(other.probabilities(images, texts), expected)
