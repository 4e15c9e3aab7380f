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
    assert f"class folder {folder / 'empty'} holds no file of" in caplog.text


def test_folders_from_a_mac_have_their_accents_apart(make_files, content):
    folder = make_files("cafe\u0301/a.mp4", "the\u0301_vert/b.mp4")
    videos = open_videos(folder, classes=["th\u00e9 vert", "caf\u00e9"])
    assert content(videos) == [("cafe\u0301/a.mp4", 1), ("the\u0301_vert/b.mp4", 0)]


def test_folders_may_write_spaces_as_underscores(make_files, content):
    folder = make_files("riding_a_bike/1.mp4", "riding a bike/2.mp4", "tai_chi/1.mp4")
    videos = open_videos(folder, classes=["tai chi", 'riding a "bike"', "other"])
    assert videos.classes == ("tai chi", 'riding a "bike"', "other")
    assert content(videos) == [
        ("riding a bike/2.mp4", 1), ("riding_a_bike/1.mp4", 1), ("tai_chi/1.mp4", 0)
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"1 folders that are not among the 1 classes: tai_chi"):
        open_videos(folder, classes=["riding_a_bike"])
    assert content(open_videos(folder, classes=["tai chi", "riding_a_bike", "riding a bike"])) == [
        ("riding a bike/2.mp4", 2), ("riding_a_bike/1.mp4", 1), ("tai_chi/1.mp4", 0)
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"classes has x more than once"):
        open_videos(folder, classes=["x", "x"])


def test_folders_that_cannot_be_used(make_files, tmp_path):
    with pytest.raises(ValueError, match=r"data has no class folders: .* such as data/cat"):
        open_videos(make_files("1.mp4"))
    with pytest.raises(ValueError, match=r"class folders without a file of 3g2, 3gp"):
        open_videos(make_files("a/1.jpg", folder="pictures"))
    file = make_files("clip.MP4", folder="films") / "clip.MP4"
    with pytest.raises(ValueError, match=r"clip.MP4 is no list of videos"):
        open_videos(file)
    with pytest.raises(ValueError, match=r"there is no .*none: name a folder with a folder of"):
        open_videos(tmp_path / "none")
    with pytest.raises(ValueError, match="backend must be one of pyav, torchcodec, got 'decord'"):
        open_videos(tmp_path, backend="decord")


def test_a_decoder_that_is_not_installed_is_refused_at_once(make_files, monkeypatch):
    """Not with the first video, in a worker of a loader."""
    for name in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    folder = make_files("a/1.mp4")
    with pytest.raises(ValueError, match="torchcodec"):
        open_videos(folder, backend="torchcodec")
    assert len(open_videos(folder, backend="pyav")) == 1


def test_subsets(make_files, write_list, content):
    make_files("a.mp4", "b.mp4", "c.mp4")
    videos = open_videos(write_list("a.mp4 0", "b.mp4 1", "c.mp4 2"))
    part = videos.subset(np.array([2, 0]))
    assert content(part) == [("c.mp4", 2), ("a.mp4", 0)]
    assert (part.classes, part.sample_id(1)) == (videos.classes, videos.sample_id(0))
    assert content(part.subset([1, 1])) == [("a.mp4", 0)] * 2
    assert len(videos.subset([])) == 0
    with pytest.raises(IndexError, match="no video 3 among 3"):
        videos.subset([0, 3])
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"no video {index} among 2"):
            part.sample_id(index)


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


def test_workers_are_sent_a_copy(make_files, write_list, content):
    make_files("a.mp4", "b.mp4")
    videos = open_videos(write_list("a.mp4 0", "b.mp4 1"))
    assert content(pickle.loads(pickle.dumps(videos))) == content(videos)


def test_a_folder_of_splits_is_suspicious(make_files, caplog):
    open_videos(make_files("train/1.mp4", "val/1.mp4"))
    assert "holds the splits train, val, which become classes" in caplog.text
    caplog.clear()
    open_videos(make_files("train/1.mp4", "run/1.mp4", folder="sports"))
    assert not caplog.records
