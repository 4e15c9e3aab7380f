"""The two transforms, on a photograph: one crop, mirrored, normalised, with a mask."""

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from eva_pretrain import transforms
from eva_pretrain.transforms import PretrainTransform, ValidationTransform, Views

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _views(size, mean=MEAN, std=STD, **options):
    return Views(size=size, mean=mean, std=std, **options)


def _pixels(size, **options):
    return _views(size, mean=(0.0,) * 3, std=(1.0,) * 3, **options)


def test_transform_gives_the_same_crop_to_both(photograph):
    image = torch.from_numpy(photograph).permute(2, 0, 1)
    torch.manual_seed(1)
    sample = PretrainTransform(_views(56, teacher_size=112))(image)
    assert sample["images"].shape == (3, 56, 56)
    assert sample["teacher_images"].shape == (3, 112, 112)
    shrunk = F.resize(sample["teacher_images"], [56, 56], antialias=True)
    assert (shrunk - sample["images"]).abs().mean() < 0.15
    torch.manual_seed(1)
    alone = PretrainTransform(_views(56))(image)
    assert set(alone) == {"images"}
    assert torch.equal(alone["images"], sample["images"])


def test_flip_mirrors_and_statistics_normalise(photograph, monkeypatch):
    image = torch.from_numpy(photograph).permute(2, 0, 1)
    samples = []
    for flip in (0.0, 1.0):
        monkeypatch.setattr(transforms, "FLIP", flip)
        torch.manual_seed(2)
        views = _views(56, teacher_mean=(0.5,) * 3, teacher_std=(0.5,) * 3)
        samples.append(PretrainTransform(views)(image))
    assert torch.equal(samples[0]["images"].flip(-1), samples[1]["images"])
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    pixels = samples[0]["images"] * std + mean
    torch.testing.assert_close(samples[0]["teacher_images"], (pixels - 0.5) / 0.5)


def test_crop_scale_bounds_the_area(photograph, monkeypatch):
    """A ramp instead of a picture shows how much of it a crop holds."""
    monkeypatch.setattr(transforms, "FLIP", 0.0)
    ramp = torch.arange(256, dtype=torch.uint8).repeat(3, 256, 1)
    transform = PretrainTransform(_pixels(32), scale=(0.9, 1.0))
    widths = []
    for seed in range(50):
        torch.manual_seed(seed)
        row = transform(ramp)["images"][0, 0]
        widths.append(float(row[-1] - row[0]))
    assert min(widths) > 0.8  # sqrt(0.9 * 3/4), less the pixels' own width
    full = PretrainTransform(_pixels(32), scale=(0.2, 0.2))
    row = full(ramp)["images"][0, 0]
    assert row[-1] - row[0] < 0.6


def test_validation_takes_the_middle(photograph):
    image = torch.from_numpy(photograph)[:300].permute(2, 0, 1)
    sample = ValidationTransform(_pixels(224, teacher_size=112))(image)
    pil = Image.fromarray(photograph[:300]).resize((436, 256), Image.Resampling.BICUBIC)
    pil = pil.crop((106, 16, 330, 240))
    expected = torch.from_numpy(np.array(pil)).permute(2, 0, 1) / 255
    assert (sample["images"] - expected).abs().max() < 0.02
    assert sample["teacher_images"].shape == (3, 112, 112)
