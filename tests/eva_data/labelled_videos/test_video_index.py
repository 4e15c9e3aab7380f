"""Indexes of videos: what is kept, moved and relabelled videos, damaged files."""

import pickle

import numpy as np
import pytest

from eva_data.index import IMAGE_KIND, VIDEO_KIND, Table
from eva_data.labelled_videos.index import write_video_index
from eva_data.labelled_videos.sources import open_videos


@pytest.fixture
def index(make_files, tmp_path):
    """An index of two of three files of two classes."""
    videos = open_videos(make_files("run/1.mp4", "run/2.mp4", "walk far/3.mp4"))
    facts = {"frames": np.array([7, 8, 9], np.int32), "sha256": np.zeros((3, 32), np.uint8)}
    write_video_index(tmp_path / "i.safetensors", videos, [2, 0], facts)
    return tmp_path / "i.safetensors"


def test_kept_videos_in_their_order(index, content, tmp_path):
    videos = open_videos(index)
    assert content(videos) == [("walk far/3.mp4", 1), ("run/1.mp4", 0)]
    assert videos.sample_id(0) == str(tmp_path / "data/walk far/3.mp4")
    assert Table.open(index, kind=VIDEO_KIND)["frames"].tolist() == [9, 7]
    sent = pickle.dumps(videos)
    assert b"3.mp4" not in sent  # every process maps the file
    assert content(pickle.loads(sent)) == content(videos)
    parts = open_videos(tmp_path / "data").subset([2, 0])
    assert videos.checksum() == parts.checksum()


def test_files_that_are_no_index_of_videos(index, tmp_path):
    table = Table.open(index, kind=VIDEO_KIND)
    other = tmp_path / "other.safetensors"
    Table(dict(table), table.about).save(other)
    with pytest.raises(ValueError, match=rf"other\.safetensors .*'{IMAGE_KIND}'"):
        open_videos(other)
    for changes in (
        {"label": None}, {"label": np.array([0, 2], np.int32)}, {"label": np.array([0], np.int32)},
        {"label": np.array([0, -1], np.int32)}, {"names.ends": None},
        {"pictures": np.array([1], np.int32)},
    ):  # fmt: skip
        arrays = {name: value for name, value in {**table, **changes}.items() if value is not None}
        Table(arrays, table.about, kind=VIDEO_KIND).save(other)
        with pytest.raises(ValueError, match=r"write it again"):
            open_videos(other)
    for about in (None, {"classes": 3}, {"classes": ["a", "b"]}, {"classes": [], "root": "."}):
        Table(dict(table), about, kind=VIDEO_KIND).save(other)
        with pytest.raises(ValueError, match=r"write it again"):
            open_videos(other)
