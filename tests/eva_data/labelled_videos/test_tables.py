"""Lists with named columns: DeepMind's CSV of ids and times, and tables of paths."""

import logging

import pytest

from eva_data.labelled_videos.sources import open_videos

HEADER = "label,youtube_id,time_start,time_end,split"
# an id that looks like one with times, one that begins with a minus, two of one class
ROWS = (
    "riding a bike,ab_12_34567,10,20,train",
    "abseiling,-3B32lodo2M,59,69,train",
    '"sailing, fast",0123456789_,0,10,train',
    "abseiling,aaaaaaaaaaa,7,17,train",
)
CLASSES = ("abseiling", "riding a bike", "sailing, fast")


@pytest.mark.parametrize("names", [
    ("ab_12_34567.mp4", "-3B32lodo2M.mp4", "0123456789_.mkv", "aaaaaaaaaaa.MP4"),
    ("ab_12_34567_10_20.mp4", "-3B32lodo2M_59_69.mp4", "0123456789__0_10.mkv",
     "aaaaaaaaaaa_7.0_17.0.mp4"),
    ("riding a bike/ab_12_34567_000010_000020.mp4", "abseiling/-3B32lodo2M.mp4",
     "x/y/0123456789__000000_000010.mkv", "aaaaaaaaaaa_000007_000017.mp4"),
])  # fmt: skip
def test_ids_are_found_by_any_of_the_usual_names(make_files, write_list, content, caplog, names):
    folder = make_files(*names, folder="videos")
    videos = open_videos(write_list(HEADER, *ROWS), root=folder)
    assert videos.classes == CLASSES
    assert content(videos) == list(zip(names, (1, 0, 2, 0), strict=True))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (len(videos.missing), len(videos.unlisted)) == (0, 0)


def test_tables_of_paths(make_files, write_list, content):
    make_files("a, b.mp4", "c.mp4")
    for lines in (
        ("path,label", '"a, b.mp4",1', "c,0"),
        ("\tpath\tlabel", "0\ta, b.mp4\t1", "1\tc.mp4\t0"),  # pandas writes its index
        ("path,label,", '"a, b.mp4",1,', "c,0,,"),
        ("id,filename,label", '7,"a, b.mp4",1', "8,c.mp4,0"),
    ):
        assert content(open_videos(write_list(*lines))) == [("a, b.mp4", 1), ("c.mp4", 0)]
    videos = open_videos(write_list("path,label", "c.mp4,walk", '"a, b.mp4",run'))
    assert (content(videos), videos.classes) == ([("c.mp4", 1), ("a, b.mp4", 0)], ("run", "walk"))
