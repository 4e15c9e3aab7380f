"""Run lengths: they are pycocotools'."""

import numpy as np
import pycocotools.mask as mask_api
import pytest

from eva_detection.data.coco_objects import check_counts
from eva_detection.data.coco_rules import run_lengths

SIZE = (30, 40)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_equal_pycocotools(seed):
    random = np.random.default_rng(seed)
    pixels = np.asfortranarray(random.random(SIZE) < random.random(), dtype=np.uint8)
    counts = mask_api.encode(pixels)["counts"].decode()
    lengths = run_lengths(counts)
    values = np.repeat(np.arange(len(lengths)) % 2, lengths)
    assert np.array_equal(values.reshape(SIZE, order="F"), pixels)
    check_counts(counts, pixels.size)
    check_counts(lengths, pixels.size)
    for size in (pixels.size - 1, pixels.size + 1):
        with pytest.raises(ValueError, match=f"RLE of 1200 pixels; its image has {size}"):
            check_counts(counts, size)
