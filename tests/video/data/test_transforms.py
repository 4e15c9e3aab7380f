"""Frames become clips: parity with cv2 and with the official crops, and odd sizes."""

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import ColorJitter

from eva_backbone.variants import IMAGENET_MEAN, IMAGENET_STD
from eva_video.config import AugmentConfig
from eva_video.data import transforms
from eva_video.data.transforms import (
    CropsTransform,
    Normalise,
    TrainingTransform,
    resize_short_side,
)

PLAIN = {"flip": 0.0, "color_jitter": 0.0, "gray": 0.0}


def training(size, **changes):
    augment = AugmentConfig(**PLAIN | changes)
    return TrainingTransform(size, normalise=Normalise(), augment=augment)


def pixels_of(clip):
    """Undo `Normalise`: (..., 3, H, W) in 0..255."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (clip * std + mean) * 255


def clip_of(photograph, frames=3):
    """Overlapping parts of a photograph, (T, 300, 410, 3)."""
    return np.stack([photograph[30 * i : 30 * i + 300, 20 * i : 20 * i + 410]
                     for i in range(frames)])  # fmt: skip


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("side", [40, 96, 256, 431])
def test_resizing_is_that_of_cv2(photograph, side, upright):
    frames = clip_of(photograph)
    if upright:
        frames = np.ascontiguousarray(frames.transpose(0, 2, 1, 3))
    found = resize_short_side(transforms.as_pixels(frames), side)
    width = int(410 * side / 300 + 0.5)
    size = (side, width) if upright else (width, side)
    assert found.shape == (3, 3, *reversed(size))
    for frame, pixels in zip(frames, found, strict=True):
        expected = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        difference = pixels.permute(1, 2, 0).numpy().astype(int) - expected
        assert abs(difference).max() <= 1
        assert abs(difference.mean()) < 0.3  # half a grey level is what rounding to below costs


def test_frames_that_are_strips_do_not_fill_the_memory():
    strips = torch.zeros(2, 3, 1, 4000, dtype=torch.uint8)
    assert resize_short_side(strips, 32).shape == (2, 3, 32, 50 * 32)
    assert resize_short_side(strips.mT, 32).shape == (2, 3, 50 * 32, 32)


@pytest.mark.parametrize("upright", [False, True])
def test_three_crops(photograph, upright):
    frames = clip_of(photograph, 2)
    if upright:
        frames = frames.transpose(0, 2, 1, 3)
    views = CropsTransform(90, crops=3, normalise=Normalise())(np.ascontiguousarray(frames))
    assert views.shape == (3, 2, 3, 90, 90)
    resized = resize_short_side(transforms.as_pixels(frames), 90).float()  # 90 x 123
    ends = (slice(0, 90), slice(32, 122), slice(16, 106))
    for view, end in zip(pixels_of(views), ends, strict=True):
        expected = resized[..., end, :] if upright else resized[..., end]
        torch.testing.assert_close(view, expected, atol=1e-3, rtol=0)
    (middle,) = CropsTransform(90, crops=1, normalise=Normalise())(np.ascontiguousarray(frames))
    assert middle.equal(views[2])


def test_where_the_training_crop_lies():
    """Corners and middle of 256 x 340, in steps of a quarter, as mmaction2 rounds them."""
    sides = (256, 224, 192, 168)  # 256 times 1, 0.875, 0.75 and 0.66; neighbours go together
    sizes = {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) < 2}
    seen = {}
    transform = training(224)
    for _ in range(1500):
        top, left, height, width = transform.draw_crop(256, 340)
        seen.setdefault((height, width), set()).add((top, left))
    assert seen.keys() == sizes
    for (height, width), places in seen.items():
        down, right = (256 - height) // 4, (340 - width) // 4
        assert places == {
            (0, 0), (0, 4 * right), (4 * down, 0), (4 * down, 4 * right), (2 * down, 2 * right)
        }  # fmt: skip


def test_training_clip_is_the_crop_resized(photograph, monkeypatch):
    frames = clip_of(photograph)
    transform = training(64)
    monkeypatch.setattr(transform, "draw_crop", lambda *_: (9, 20, 48, 64))
    clip = pixels_of(transform(frames))
    assert clip.shape == (3, 3, 64, 64)
    for frame, found in zip(frames, clip, strict=True):
        small = cv2.resize(frame, (100, 73), interpolation=cv2.INTER_LINEAR)  # int(64 * 256 / 224)
        expected = cv2.resize(small[9:57, 20:84], (64, 64), interpolation=cv2.INTER_LINEAR)
        difference = found.permute(1, 2, 0).numpy() - expected
        assert abs(difference).max() < 2.01  # resized twice


@pytest.mark.parametrize("each", ["clip", "frame"])
def test_colours_change_with_the_clip_or_with_each_frame(photograph, each):
    frames = np.repeat(photograph[None, :64, :64], 4, axis=0)
    transform = training(64, color_jitter=1.0, jitter_each=each)
    clip = transform(frames)
    assert not clip.equal(training(64)(frames))
    same = [bool(clip[0].equal(frame)) for frame in clip]
    assert same == ([True] * 4 if each == "clip" else [True, False, False, False])


@pytest.mark.parametrize("each", ["clip", "frame"])
def test_colours_change_as_officially(photograph, each):
    """Order and factors: with the same random numbers, torchvision's change of each picture."""
    pixels = transforms.as_pixels(clip_of(photograph, 2)[:, 100:164, 100:164])
    official = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    for seed in range(12):
        torch.manual_seed(seed)
        found = transforms.jitter(pixels, each=each)
        torch.manual_seed(seed)
        if each == "frame":
            expected = torch.stack([official(frame) for frame in pixels])
        else:
            first = official(pixels[0])
            torch.manual_seed(seed)
            expected = torch.stack([first, official(pixels[1])])
        difference = (found.float() - expected.float()).abs()
        assert difference.mean() < 0.5  # of 255, where rounding differs
        assert difference.quantile(0.99) <= 4
