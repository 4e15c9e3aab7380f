"""Folders of numbered pictures as videos, and lists of them."""

import numpy as np
import pytest

from eva_data.labelled_videos.sources import open_videos
from eva_data.video.source import RawFrames, UnreadableVideoError


@pytest.fixture
def make_frames(tmp_path, write_picture):
    """Function: a folder of pictures, whose grey is their number."""

    def make(folder, numbers, name="img_{:05d}.jpg", size=(10, 9)):
        for number in numbers:
            write_picture(tmp_path / folder / name.format(number), number, size)
        return tmp_path / folder

    return make


@pytest.mark.parametrize(
    ("name", "start"), [("img_{:05d}.jpg", 1), ("v2.1-{}.JPEG", 0), ("im 1_{:03d}.webp", 0)]
)
def test_frames(make_frames, name, start):
    folder = make_frames("a", range(start, start + 12), name)
    for other in ("flow_x_{:05d}.jpg", "y_{:05d}.jpg", ".img_{:05d}.jpg"):
        make_frames("a", range(1, 13), other)
    (folder / "note1.txt").touch()
    with RawFrames(folder) as video:
        assert (len(video), video.size, video.rotation, video.rate) == (12, (9, 10), 0, 25)
        frames = video.frames([11, 0, 2, 0])
        assert (frames.shape, frames.dtype) == ((4, 9, 10, 3), np.uint8)
        assert frames[:, 0, 0, 0].tolist() == [start + k for k in (11, 0, 2, 0)]
        assert video.times([0, 5]) == [0.0, 0.2]
        assert video.frames([]).shape == (0, 9, 10, 3)
        for read in (video.frames, video.times):
            with pytest.raises(IndexError, match="a has no frame 12"):
                read([12])


@pytest.mark.parametrize("separator", [" ", ","])
def test_lists_of_mmaction2(make_frames, write_list, content, separator):
    make_frames("data/run fast/a 1", range(1, 8))
    make_frames("data/walk/b", range(1, 4))
    lines = ["run fast/a 1{0}6{0}1", "walk/b{0}3{0}0", "walk/b{0}5{0}0"]
    videos = open_videos(write_list(*(line.format(separator) for line in lines)))
    assert content(videos) == [("run fast/a 1", 1), ("walk/b", 0), ("walk/b", 0)]
    with videos.open(0) as video:
        assert (len(video), video.frames([5])[0, 0, 0, 0]) == (6, 6)
    with pytest.raises(UnreadableVideoError, match=r"walk/b.*2.*5"):
        videos.open(2)
