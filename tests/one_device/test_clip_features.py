"""Features of pictures and texts are computed where the model is, and so are comparisons."""

import copy

import pytest
import torch

from eva_contrastive.inference.demo import rank
from eva_contrastive.inference.features import ClipFeatures
from eva_contrastive.model.eva_clip import build_eva_clip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32, sigmoid=True)


def test_features_and_probabilities(model, second, tmp_path, write_picture):
    write_picture(tmp_path / "grey.png", 100)
    texts = ["a cat", "a dog"]

    def compute(clip):
        features = clip.texts(texts)
        images = clip.images([tmp_path / "grey.png"] * 2)
        return features, images, clip.probabilities(images, features)

    here = ClipFeatures(model)
    ranked = rank(here, tmp_path / "grey.png", texts, here.texts(texts))
    wanted = compute(here)
    with second() as device:
        there = ClipFeatures(copy.deepcopy(model).to(device))
        for one, other in zip(wanted, compute(there), strict=True):
            assert other.device == device
            torch.testing.assert_close(other.cpu(), one, atol=1e-5, rtol=1e-5)
        again = rank(there, tmp_path / "grey.png", texts, there.texts(texts))
    assert [one.text for one in again] == [one.text for one in ranked]
    assert again[0].probability == pytest.approx(ranked[0].probability, rel=1e-4)
