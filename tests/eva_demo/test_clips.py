"""Clips of moving digits: what moves is seen in them, and in no single frame."""

from collections import Counter

import numpy as np
import pytest

from eva_demo import clips
from eva_demo.clips import MOTIONS, ClipGenerator, draw_path
from eva_demo.sources import DIGIT_RANGES, Handwriting, Photographs


@pytest.fixture
def plain_clips(monkeypatch):
    """Function: a generator of one digit, smaller than usual, on a grey ground."""

    def make(digit):
        photo = Photographs("train", size=32)._photos[0]
        ground = np.full((120, 120, 3), 90, np.uint8)
        small = (np.log(0.15), np.log(0.35), (0.5, 0.7))
        monkeypatch.setattr(Photographs, "crop", lambda self, rng: (photo, ground))
        monkeypatch.setattr(Handwriting, "choose", lambda self, rng: (digit, digit))
        monkeypatch.setitem(clips._RANGES, "size", small)
        return ClipGenerator("train", size=96)

    return make


def test_golden_clip():
    """CLIP_VERSION must change together with the clips, or old data sets pass for new ones."""
    frames, about = ClipGenerator("train").make(2)
    assert clips.CLIP_VERSION == 1
    assert (about["motion"], about["digit"], about["digit_index"]) == ("left", 8, 544)
    assert frames.shape == (24, 64, 64, 3)
    ends = [about["path"][name] for name in ("x", "y", "size", "angle")]
    golden = [(42.793, 18.875), (20.713,) * 2, (29.199,) * 2, (-25.811,) * 2]
    np.testing.assert_allclose(ends, golden, atol=1e-3)


def test_motions_take_turns_and_split_digits_and_photographs():
    photos = {}
    for split, digits in DIGIT_RANGES.items():
        maker = ClipGenerator(split, size=24)
        made = [maker.make(index) for index in range(48)]
        assert Counter(about["motion"] for _, about in made) == dict.fromkeys(MOTIONS, 6)
        assert all(about["digit_index"] in digits for _, about in made)
        assert {len(frames) for frames, _ in made} == set(range(16, 25))
        photos[split] = {about["photo"] for _, about in made}
    assert not photos["train"] & photos["val"]


def test_one_coordinate_goes_where_the_motion_says():
    names = ("x", "y", "size", "angle")
    least = {"x": 0.25, "y": 0.25, "size": 0.5, "angle": 60}
    for motion, (moving, direction) in MOTIONS.items():
        for seed in range(20):
            path = draw_path(motion, np.linspace(0, 1, 20), rng=np.random.default_rng(seed))
            for name, course in zip(names, path, strict=True):
                if name == moving:
                    assert np.all(np.diff(course) * direction > 0)
                    assert abs(course[-1] - course[0]) >= least[name] - 1e-9
                else:
                    assert np.ptp(course) == 0


def test_a_frame_at_a_random_time_is_distributed_alike_in_all_motions():
    """Two-sample Kolmogorov-Smirnov distance of each coordinate to that of all motions together.

    For equal distributions it is below 1.95 / sqrt(4000 * 8 / 9) = 0.033 in 999 of 1000 cases; a
    static coordinate that is drawn from the range as it is, for example, is 0.08 away.
    """
    time, samples = np.linspace(0, 1, 20), {}
    for number, motion in enumerate(MOTIONS):
        rng = np.random.default_rng(number)
        drawn = [draw_path(motion, time, rng=rng)[:, rng.integers(20)] for _ in range(4000)]
        samples[motion] = np.stack(drawn)  # (4000, 4)
    pooled = np.sort(np.concatenate(list(samples.values())), axis=0)
    for motion, states in samples.items():
        for coordinate in range(4):
            everywhere = pooled[:, coordinate]
            own = np.searchsorted(np.sort(states[:, coordinate]), everywhere, side="right") / 4000
            distance = np.abs(own - np.arange(1, len(everywhere) + 1) / len(everywhere)).max()
            assert distance < 0.033, (motion, coordinate, distance)


def test_pixels_follow_the_path(plain_clips):
    """On a plain ground, the digit's centre and area in the frames are those of the path."""
    maker = plain_clips(0)  # nearly symmetrical
    for index in range(8):
        frames, about = maker.make(index)
        painted, path = np.any(frames != 90, axis=-1), about["path"]
        ends = []
        for frame in (painted[0], painted[-1]):
            rows, columns = np.nonzero(frame)
            ends.append((columns.mean(), rows.mean(), len(rows) ** 0.5))
        for name, values in zip(("x", "y"), np.transpose(ends)[:2], strict=True):
            np.testing.assert_allclose(values, path[name], atol=2.5)
        grown = np.log(ends[1][2] / ends[0][2])
        assert abs(grown - np.log(path["size"][1] / path["size"][0])) < 0.2
        turned = path["angle"][1] - path["angle"][0]
        assert (abs(turned) >= 60) == about["motion"].startswith("turn")
