"""Videos by whatever names them: folders of classes, and what every list of videos offers."""

import pickle
import sys

import numpy as np
import pytest

from eva_data.labelled_videos.opening import open_videos


def test_class_folders(make_files, content, caplog):
    folder = make_files("b c/2.mp4", "b c/x/1.MKV", "a/1.avi", "a/.2.mp4", "a/1.jpg", "z.mp4")
    (folder / "empty").mkdir()
    videos = open_videos(folder)
    assert videos.classes == ("a", "b c", "empty")
    assert content(videos) == [("a/1.avi", 0), ("b c/2.mp4", 1), ("b c/x/1.MKV", 1)]
    assert videos.labels.dtype == np.int32
    assert videos.sample_id(1) == str(folder / "b c/2.mp4")
    assert str(folder / "empty") in caplog.text


def test_folders_may_spell_classes_in_their_way(make_files, content):
    """Spaces as underscores, and accents apart from their letters, as on a Mac."""
    folder = make_files("cafe\u0301/a.mp4", "riding_a_bike/1.mp4", "riding a bike/2.mp4")
    videos = open_videos(folder, classes=["caf\u00e9", 'riding a "bike"', "other"])
    assert videos.classes == ("caf\u00e9", 'riding a "bike"', "other")
    assert content(videos) == [
        ("cafe\u0301/a.mp4", 0), ("riding a bike/2.mp4", 1), ("riding_a_bike/1.mp4", 1)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="cafe\u0301"):
        open_videos(folder, classes=["riding_a_bike"])


def test_places_that_cannot_be_used(make_files, tmp_path, monkeypatch):
    file = make_files("clip.MP4", folder="films") / "clip.MP4"
    for place, message in (
        (make_files("1.mp4"), "data has no class folders"),
        (make_files("a/1.jpg", folder="pictures"), "pictures has class folders without a file"),
        (file, r"clip.MP4 is no list of videos"),
        (tmp_path / "none", r"none is no list of videos"),
    ):
        with pytest.raises(ValueError, match=message):
            open_videos(place)
    with pytest.raises(ValueError, match="backend must be one of pyav, torchcodec, got 'decord'"):
        open_videos(tmp_path, backend="decord")
    for name in ("torchcodec", "torchcodec.decoders"):  # at once, not in a worker of a loader
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="torchcodec"):
        open_videos(make_files("a/1.mp4"), backend="torchcodec")


def test_subsets(make_files, write_list, content):
    make_files("a.mp4", "b.mp4", "c.mp4")
    videos = open_videos(write_list("a.mp4 0", "b.mp4 1", "c.mp4 2"))
    part = videos.subset(np.array([2, 0]))
    assert content(part) == [("c.mp4", 2), ("a.mp4", 0)]
    assert (part.classes, part.sample_id(1)) == (videos.classes, videos.sample_id(0))
    assert content(part.subset([1, 1])) == [("a.mp4", 0)] * 2
    with pytest.raises(IndexError):
        videos.subset([0, 3])
    with pytest.raises(IndexError):
        part.sample_id(2)
    assert content(pickle.loads(pickle.dumps(part))) == content(part)  # as workers are sent it


def test_checksums(make_files, write_list):
    """They change with any name, label, class or the order, and not with the place."""
    for folder in ("data", "moved"):
        make_files("a.mp4", "b.mp4", folder=folder)

    def checksum(*lines, name="data/list.txt", **options):
        return open_videos(write_list(*lines, name=name), **options).checksum()

    usual = checksum("a.mp4 0", "b.mp4 1")
    assert checksum("a,0", "b,1", name="moved/list.csv") == usual
    others = {
        usual,
        checksum("b.mp4 1", "a.mp4 0"),
        checksum("a.mp4 1", "b.mp4 0"),
        checksum("a.mp4 0", "b.mp4 1", classes=["x", "y"]),
        checksum("a.mp4 0"),
    }
    assert len(others) == 5
    part = open_videos(write_list("a.mp4 0", "b.mp4 1", "b.mp4 0")).subset([0, 1])
    assert part.checksum() == usual
