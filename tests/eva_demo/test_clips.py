"""Clips of moving digits: what moves is seen in them, and in no single frame."""

import numpy as np

from eva_demo import clips
from eva_demo.clips import ClipGenerator


def test_golden_clip():
    """CLIP_VERSION must change together with the clips, or old data sets pass for new ones."""
    frames, about = ClipGenerator("train").make(2)
    assert clips.CLIP_VERSION == 1
    assert (about["motion"], about["digit"], about["digit_index"]) == ("left", 8, 544)
    assert frames.shape == (24, 64, 64, 3)
    ends = [about["path"][name] for name in ("x", "y", "size", "angle")]
    golden = [(42.793, 18.875), (20.713,) * 2, (29.199,) * 2, (-25.811,) * 2]
    np.testing.assert_allclose(ends, golden, atol=1e-3)
    means = [frames.mean(), frames[0].mean(), frames[-1].mean()]
    np.testing.assert_allclose(means, [109.419, 109.122, 109.770], atol=0.05)
