"""Videos by whatever names them: folders of classes, and what every list of videos offers."""

from pathlib import Path

import numpy as np

from eva_data.labelled_videos.sources import open_videos


def test_class_folders(make_files, content, caplog):
    folder = make_files("b c/2.mp4", "b c/x/1.MKV", "a/1.avi", "a/.2.mp4", "a/1.jpg", "z.mp4")
    (folder / "empty").mkdir()
    videos = open_videos(folder)
    assert videos.classes == ("a", "b c")
    assert content(videos) == [("a/1.avi", 0), ("b c/2.mp4", 1), ("b c/x/1.MKV", 1)]
    assert videos.labels.dtype == np.int32
    assert videos.sample_id(1) == str(folder / "b c/2.mp4")
    assert str(folder / "empty") in caplog.text
    assert open_videos(folder, classes=videos.classes).classes == ("a", "b c")


def test_folders_named_by_numbers_are_in_their_order(make_files):
    """As in lists, where a number is a label."""
    videos = open_videos(make_files(*(f"{number}/a.mp4" for number in range(12))))
    assert videos.classes == tuple(map(str, range(12)))
    folders = [int(Path(videos.sample_id(at)).parent.name) for at in range(12)]
    assert videos.labels.tolist() == folders


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
