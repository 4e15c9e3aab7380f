"""Block-wise masks as a distribution, what the sampler refuses, and the positions of a mask."""

import random

import numpy as np
import pytest
import torch

from eva_pretrain import masked_image_modeling
from eva_pretrain.masked_image_modeling import BlockMasking, collate, masked_positions
from eva_pretrain.validation import alternating_mask


def _draw(count, **options):
    random.seed(0)
    masking = BlockMasking(**options)
    return np.stack([masking() for _ in range(count)])


def test_the_distribution_of_the_official_sampler():
    """Its simulation: counts 104.44 +- 1.05, at least 94, 65 % full, 99.4 % with 100 or more;
    a corner is masked in 4 %, the centre in about 74 % of the masks. Tolerances are four standard
    errors of 3000 draws, plus the last digit that was noted down."""
    masks = _draw(3000)
    assert masks.shape == (3000, 16, 16)
    assert masks.dtype == np.bool_
    counts = masks.sum((1, 2))
    assert counts.max() == 105
    assert counts.min() >= 92  # 94 among 6000: a rare one may be lower
    assert counts.mean() == pytest.approx(104.44, abs=4 * 1.05 / 3000**0.5 + 0.005)
    assert counts.std() == pytest.approx(1.05, abs=0.15)  # a heavy tail
    assert (counts == 105).mean() == pytest.approx(0.65, abs=4 * 0.48 / 3000**0.5 + 0.005)
    assert (counts >= 100).mean() == pytest.approx(0.994, abs=4 * 0.077 / 3000**0.5 + 0.0005)
    rate = masks.mean(0)
    for corner in (rate[0, 0], rate[0, -1], rate[-1, 0], rate[-1, -1]):
        assert corner == pytest.approx(0.04, abs=4 * 0.2 / 3000**0.5 + 0.005)
    assert rate[7:9, 7:9].mean() == pytest.approx(0.745, abs=4 * 0.44 / 3000**0.5 + 0.005)
    symmetric = 4 * 0.5 * (2 / 3000) ** 0.5  # of two rates
    assert np.abs(rate - rate.T).max() < symmetric
    assert np.abs(rate - rate[::-1]).max() < symmetric


def test_masks_are_made_of_blocks():
    """Rectangles of 16 patches or more: far fewer borders than as many patches at random."""
    masks = _draw(200)
    borders = (masks[:, 1:] != masks[:, :-1]).mean()
    share = 105 / 256
    assert borders < 0.25 * 2 * share * (1 - share)


def test_the_seed_of_python_decides():
    first, second = _draw(3), _draw(3)
    assert np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_other_grids_and_numbers(monkeypatch):
    monkeypatch.setattr(masked_image_modeling, "ASPECT", (0.5, 2.0))
    masks = _draw(300, grid=(6, 10), num_masked=24, min_block=4)
    counts = masks.sum((1, 2))
    assert masks.shape[1:] == (6, 10)
    assert counts.max() == 24
    assert counts.mean() > 23
    assert masks.any(0).all()


def test_a_block_is_smaller_than_the_grid_on_both_sides(monkeypatch):
    monkeypatch.setattr(masked_image_modeling, "ASPECT", (0.2, 5.0))
    random.seed(0)
    masking = BlockMasking(grid=(4, 5), num_masked=8, min_block=4)
    shapes = set()
    for _ in range(500):
        mask = np.zeros((4, 5), dtype=np.bool_)
        assert masking._add_block(mask, 8) == mask.sum()
        shapes.add((mask.any(1).sum(), mask.any(0).sum()))
    assert {rows for rows, _ in shapes} == {1, 2, 3}
    assert {columns for _, columns in shapes} == {1, 2, 3, 4}


def test_fewer_patches_than_a_block():
    counts = _draw(100, num_masked=10).sum((1, 2))
    assert counts.max() == 10
    assert counts.mean() > 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_masked": 0}, r"num_masked must be in 1\.\.256 for the grid 16x16, got 0"),
        ({"grid": (4, 4), "num_masked": 17}, r"in 1\.\.16 for the grid 4x4, got 17"),
        ({"min_block": 0}, "min_block must be at least 1, got 0"),
        ({"grid": (4, 4), "num_masked": 16}, "no rectangle of 16 patches .* take a smaller min_bl"),
        ({"grid": (2, 40), "num_masked": 40}, "smaller than the grid 2x40 on both sides"),
    ],
)
def test_numbers_that_do_not_fit_together(options, message):
    with pytest.raises(ValueError, match=message):
        BlockMasking(**options)


def test_alternating_mask():
    mask = alternating_mask((16, 16))
    assert mask.shape == (16, 16)
    assert mask.sum() == 128
    assert mask.flatten()[:5].tolist() == [True, False, True, False, True]
    assert alternating_mask((3, 3)).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_positions_pick_what_the_mask_picks():
    mask = torch.rand(5, 12) < torch.tensor([0.5, 0.0, 1.1, 0.3, 0.8])[:, None]
    values = torch.randn(5, 12)
    read, rows, patches = masked_positions(mask)
    assert read.shape == (5, 12)
    assert torch.equal(values.gather(1, read).flatten()[rows], values[mask])
    assert torch.equal(values.flatten()[patches], values[mask])


def test_positions_are_as_many_as_the_longest_image_needs():
    mask = torch.tensor([[False, True, False, True], [False, False, True, False]])
    read, rows, patches = masked_positions(mask)
    assert read[0].tolist() == [1, 3]
    assert read.shape == (2, 2)
    assert read[1, 0] == 2
    assert rows.tolist() == [0, 1, 2]
    assert patches.tolist() == [1, 3, 6]
    assert {index.dtype for index in (read, rows, patches)} == {torch.int64}


def test_a_batch_has_the_positions_of_its_masks():
    masks = torch.rand(3, 2, 4) < 0.5
    images = torch.randn(3, 3, 8, 16)
    samples = [{"images": i, "mask": m} for i, m in zip(images, masks, strict=True)]
    batch = collate(samples)
    assert batch.keys() == {"images", "mask", "positions"}
    assert torch.equal(batch["mask"], masks)
    for found, wanted in zip(batch["positions"], masked_positions(masks.flatten(1)), strict=True):
        assert torch.equal(found, wanted)
    assert collate([{"images": image} for image in images]).keys() == {"images"}
    with pytest.raises(ValueError, match="the mask hides no patch of any image"):
        collate([sample | {"mask": torch.zeros(2, 4, dtype=torch.bool)} for sample in samples])
