"""The sheet of a run's first batch."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import normalize, to_tensor

from eva_report.first_batch import (
    denormalize,
    first_batch,
    image_tiles,
    keep_first_batch,
    objects_tile,
)
from eva_report.sheets import Tile

MEAN, STD = (0.48, 0.45, 0.40), (0.26, 0.25, 0.27)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_come_back(pixels, dtype):
    tensors = torch.stack([normalize(to_tensor(one), MEAN, STD) for one in pixels]).to(dtype)
    assert np.array_equal(denormalize(tensors, MEAN, STD), pixels)
    clips = tensors[:, None].repeat(1, 3, 1, 1, 1)  # (2, 3, 3, H, W)
    assert np.array_equal(denormalize(clips, MEAN, STD)[1, 2], pixels[1])
    tiles = list(image_tiles(clips, ["a caption " * 5, ""], MEAN, STD))
    assert tiles[0].image.size == (48, 32)  # four frames
    assert tiles[0].name.startswith("a caption")


def test_a_sheet_is_small_and_a_section_of_its_run(tmp_path):
    tiles = [Tile(Image.new("RGB", size, "red"), "a", "b") for size in ((2000, 1000), (2000, 2))]
    keep_first_batch(tmp_path, lambda: tiles)
    (section,) = first_batch(tmp_path)
    assert max(section.examples[0].images[0].image.size) <= 1280
    assert first_batch(tmp_path / "other") == []


def test_objects_with_and_without_masks_and_none(pixels):
    boxes, labels = torch.tensor([[2.0, 2, 10, 9], [4, 4, 20, 14]]), torch.tensor([1, 7])
    masks = np.zeros((2, 16, 24), bool)
    masks[:, 3:8, 3:9] = True
    for given in (None, masks):
        tile = objects_tile(pixels[0], boxes, labels, given, names="ab")
        assert (tile.heading, tile.name) == ("2 objects", "b, 7")
        assert tile.image.width <= 320
    none = objects_tile(pixels[0], boxes[:0], labels[:0], masks[:0], names="ab")
    assert none.heading == "0 objects"
