"""Strips, which would fill the memory when they are enlarged: unreadable in every evaluation."""

import pytest
import torch
from PIL import Image

from eva_classification.features import FeatureExtractor
from eva_contrastive.evaluation.retrieval import encode_pairs
from eva_data.captions.opening import open_captions
from eva_data.labelled.folders import open_labelled
from eva_data.pictures import UnreadableImageError
from eva_data.transforms import evaluation_transform
from eva_engine.extraction.samples import Pictures

MESSAGE = r"cat/strip\.png has 30000 x 1 pixels: one side is more than 50 times as long as the oth"
TRANSFORM = evaluation_transform(8, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def folder(tmp_path, write_picture):
    """A class of two pictures with captions, one of them a strip."""
    write_picture(tmp_path / "data/cat/a.png", 1)
    Image.new("RGB", (30000, 1)).save(tmp_path / "data/cat/strip.png")
    for name in ("a", "strip"):
        (tmp_path / f"data/cat/{name}.txt").write_text("a cat")
    return tmp_path / "data"


def test_classes(folder):
    samples = open_labelled(str(folder), TRANSFORM, upright=False)
    assert samples[0][0].shape == (3, 8, 8)
    with pytest.raises(UnreadableImageError, match=MESSAGE):
        samples[1]
    assert open_labelled(str(folder), None, upright=False)[1][0].size == (30000, 1)


class _Clip(torch.nn.Module):
    """Features that are the mean of the pixels and 1."""

    embed_dim, context_length = 4, 8

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def encode_image(self, images, normalize=True):
        return torch.nn.functional.normalize(images.mean((1, 2, 3))[:, None].expand(-1, 4) + 2)

    def encode_text(self, tokens, normalize=True):
        return torch.nn.functional.normalize(torch.ones(len(tokens), 4))


def test_pairs(folder):
    found = encode_pairs(
        _Clip(), open_captions(folder), TRANSFORM, batch_size=2, workers=0, skip_unreadable=True
    )
    (sentence,) = found.left_out
    assert "cat/strip.png has 30000 x 1 pixels" in sentence
    assert found.kept == [0]


def test_features(folder, make_vit):
    (first, second) = (Pictures([str(folder)], TRANSFORM)[index] for index in (0, 1))
    assert first[2] == ""
    assert second[1] is None
    assert "cat/strip.png has 30000 x 1 pixels" in second[2]
    vit = make_vit()
    extractor = FeatureExtractor(
        vit, pooling="cls", image_size=vit.img_size, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    with pytest.raises(UnreadableImageError, match=MESSAGE):
        extractor([folder / "cat/strip.png"])
    with pytest.raises(UnreadableImageError, match="image has 1 x 51 pixels"):
        extractor(Image.new("RGB", (1, 51)))
