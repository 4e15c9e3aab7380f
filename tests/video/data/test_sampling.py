"""Which frames a clip has, beside the official rules written in another way."""

import numpy as np
import pytest
import torch

from eva_video.data.clips import Sampling

LENGTHS = (*range(1, 70), 250, 299, 300, 301, 7777)


def official_random(length, clips, randint):
    """`SampleFrames(clip_len=1, num_clips=T)` of mmaction2, for training."""
    interval = length // clips
    if interval:
        offsets = [i * interval + randint(interval) for i in range(clips)]
    else:
        offsets = np.around(np.arange(clips) * length / clips).astype(int)
    return [int(i) % length for i in offsets]


@pytest.mark.parametrize("frames", [1, 3, 8, 16])
def test_sparse_draws_are_the_official_ones(frames):
    for length in LENGTHS:
        torch.manual_seed(length)
        found = Sampling(frames=frames).draw(length)
        torch.manual_seed(length)
        segment = length // frames
        numbers = iter(torch.randint(max(segment, 1), (frames,)).tolist())
        expected = official_random(length, frames, lambda _, left=numbers: next(left))
        assert found.tolist() == expected
        assert found.min() >= 0
        assert found.max() < length
        if segment:
            assert (found // segment).tolist() == list(range(frames))


@pytest.mark.parametrize("frames", [1, 8, 16])
def test_the_central_clip_is_the_official_one(frames):
    for length in LENGTHS:
        expected = [int(i * length / frames + length / (2 * frames)) for i in range(frames)]
        assert Sampling(frames=frames).fixed(length).tolist() == [expected]


@pytest.mark.parametrize("kind", ["tsn", "dense"])
def test_fixed_clips_lie_between_each_other(kind):
    sampling = Sampling(frames=4, kind=kind, interval=2 if kind == "dense" else 1)
    clips = sampling.fixed(1000, clips=4)
    assert clips.shape == (4, 4)
    if kind == "tsn":  # parts of a segment of 250
        assert clips[:, 0].tolist() == [31, 93, 156, 218]
        assert (np.diff(clips) == 250).all()
        assert sampling.fixed(40, clips=4)[:, 0].tolist() == [1, 3, 6, 8]
    else:  # 994 places for clips of 7 frames
        assert clips[:, 0].tolist() == [124, 372, 621, 869]
        assert (np.diff(clips) == 2).all()


def test_dense_draws():
    sampling = Sampling(frames=4, kind="dense", interval=3)
    starts = set()
    for _ in range(300):
        drawn = sampling.draw(14)
        assert (np.diff(drawn) == 3).all()
        starts.add(int(drawn[0]))
    assert starts == set(range(5))  # the last clip ends with the last frame
    assert sampling.draw(10).tolist() == [0, 3, 6, 9]
    assert sampling.draw(4).tolist() == [0, 3, 2, 1]  # it begins again
    assert sampling.draw(1).tolist() == [0] * 4
