"""Which patches are hidden: BEiT's block-wise masks, and a fixed mask for validation.

H x W is the grid of patches throughout.
"""

import math
import random

import numpy as np
from numpy.typing import NDArray

_ATTEMPTS = 10  # at one block, before the mask is left as it is


class BlockMasking:
    """Draw masks that are unions of rectangles (paper section 2.2, after BEiT, arXiv:2106.08254).

    A mask never exceeds `num_masked` patches and is often a few short of it: the sampling stops
    when ten attempts in a row found no rectangle that fits into the rest. With the defaults, the
    recipe of EVA, 104.4 of 256 patches are masked on average.

    The numbers are drawn from Python's `random`, which a data loader seeds for each sample.

    Args:
        grid: (H, W).
        num_masked: Patches to mask at most; 105 of 256 for the paper's 40 %.
        min_block: Smallest area of a rectangle, unless less is left to mask.
        aspect: Smallest and largest ratio of a rectangle's height to its width.

    Raises:
        ValueError: If the numbers do not fit together.
    """

    def __init__(
        self,
        *,
        grid: tuple[int, int] = (16, 16),
        num_masked: int = 105,
        min_block: int = 16,
        aspect: tuple[float, float] = (0.3, 1 / 0.3),
    ) -> None:
        height, width = grid
        if not 0 < num_masked <= height * width:
            raise ValueError(
                f"num_masked must be in 1..{height * width} for the grid {height}x{width}, got "
                f"{num_masked}"
            )
        if min_block < 1:
            raise ValueError(f"min_block must be at least 1, got {min_block}")
        if not 0 < aspect[0] <= aspect[1] < math.inf:
            raise ValueError(f"aspect must be two rising positive numbers, got {aspect}")
        # the shape of the smallest rectangle, after rounding, must be smaller than the grid
        area = min(min_block, num_masked)
        flattest, tallest = area / (width - 0.5) ** 2, (height - 0.5) ** 2 / area
        if max(flattest, aspect[0]) >= min(tallest, aspect[1]):
            raise ValueError(
                f"no rectangle of {area} patches with an aspect in {aspect} is smaller than the "
                f"grid {height}x{width} on both sides; take a smaller min_block"
            )
        self.grid = (height, width)
        self.num_masked = num_masked
        self.min_block = min_block
        self.log_aspect = (math.log(aspect[0]), math.log(aspect[1]))

    def __call__(self) -> NDArray[np.bool_]:
        """Draw one mask.

        Returns:
            (H, W) bool, True where a patch is masked.
        """
        mask = np.zeros(self.grid, dtype=np.bool_)
        missing = self.num_masked
        while missing > 0:
            added = self._add_block(mask, missing)
            if added == 0:
                break
            missing -= added
        return mask

    def _add_block(self, mask: NDArray[np.bool_], limit: int) -> int:
        """Mask a rectangle that adds 1..limit patches and return how many, 0 without success."""
        height, width = self.grid
        for _ in range(_ATTEMPTS):
            # near the end `limit` is below `min_block`; uniform() takes its bounds in any order
            area = random.uniform(self.min_block, limit)
            ratio = math.exp(random.uniform(*self.log_aspect))
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if rows >= height or columns >= width:
                continue
            top, left = random.randint(0, height - rows), random.randint(0, width - columns)
            block = mask[top : top + rows, left : left + columns]
            added = rows * columns - np.count_nonzero(block)
            if 0 < added <= limit:
                block[:] = True
                return added
        return 0


def alternating_mask(grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask every other patch in reading order, beginning with the first, for validation.

    Args:
        grid: (H, W).

    Returns:
        (H, W) bool, True where a patch is masked.
    """
    height, width = grid
    return (np.arange(height * width) % 2 == 0).reshape(height, width)
