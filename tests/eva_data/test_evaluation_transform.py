"""What the transform of an evaluation keeps of pictures that are long and thin."""

import numpy as np
import pytest
import torch
from PIL import Image

from eva_data import transforms
from eva_data.transforms import evaluation_transform

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("short", "long"), [(10, 600), (7, 601), (3, 200), (24, 401)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
def test_a_strip_gives_what_the_whole_of_it_gives(turned, short, long, crop_pct, monkeypatch):
    wave = 127 + 120 * np.sin(np.arange(long) / (2 * short))[None, :, None]
    pixels = np.broadcast_to(wave, (short, long, 3)).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels.swapaxes(0, 1) if turned else pixels))
    transform = evaluation_transform(size=32, mean=MEAN, std=STD, crop_pct=crop_pct)
    whole = transform(picture)
    monkeypatch.setattr(transforms, "_MOST_PIXELS", 0)
    # at most half a pixel beside it, which is how lengths and places are rounded
    torch.testing.assert_close(transform(picture), whole, atol=0.04, rtol=0)


@pytest.mark.parametrize("size", [(40_000, 1), (1, 40_000), (60_000, 3)])
def test_a_strip_does_not_fill_the_memory(size, monkeypatch):
    resized = []
    resize = Image.Image.resize

    def counted(picture, given, *others, **named):
        resized.append(given[0] * given[1])
        return resize(picture, given, *others, **named)

    monkeypatch.setattr(Image.Image, "resize", counted)
    image = evaluation_transform(size=224, mean=MEAN, std=STD)(Image.new("RGB", size))
    assert image.shape == (3, 224, 224)
    assert max(resized) <= 1_000_000
