"""Videos in tar shards: labels, parity with webdataset's own writer and reader, damaged shards."""

import gc
import pickle

import pytest

from eva_data.labelled_videos.sources import open_videos


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, write_video):
    """Content of three small videos of 3, 4 and 5 frames."""
    folder = tmp_path_factory.mktemp("encoded")
    contents = []
    for count in (3, 4, 5):
        write_video(folder / "a.mp4", count, range(count))
        contents.append((folder / "a.mp4").read_bytes())
    return contents


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves them open
def test_what_webdataset_writes(encoded, tmp_path, monkeypatch):
    """The same keys, contents and labels as its own reader gives, and every video at its place."""
    wds = pytest.importorskip("webdataset")
    pattern = str(tmp_path / "s-%04d.tar")
    with wds.ShardWriter(pattern, maxcount=3, verbose=0) as sink:
        for number in range(8):
            sink.write({
                "__key__": f"part/{number:05d}", "mp4": encoded[number % 3],
                "cls": number % 4, "json": {"caption": "x"}, "txt": "a caption",
            })  # fmt: skip
    location = str(tmp_path / "s-{0000..0002}.tar")
    videos = open_videos(location)
    theirs = list(wds.WebDataset(location, shardshuffle=False))
    gc.collect()
    assert len(videos) == len(theirs) == 8
    for index, sample in enumerate(theirs):
        assert videos.name(index) == f"{sample['__key__']}.mp4"
        assert videos.labels[index] == int(sample["cls"])
        assert videos.files.read(index) == sample["mp4"]
    assert videos.classes == ("0", "1", "2", "3")
    assert videos.sample_id(3) == str(tmp_path / "s-0001.tar") + ":part/00003.mp4"
    for copy in (videos, pickle.loads(pickle.dumps(videos))):
        with copy.open(4) as video:
            assert (len(video), video.size) == (4, (48, 64))
            assert abs(video.frames([3]).astype(int) - 130).max() <= 4
    assert videos.subset([4]).sample_id(0) == videos.sample_id(4)
    monkeypatch.chdir(tmp_path)
    assert open_videos("s-*.tar").checksum() == videos.checksum()


def test_labels(encoded, write_tar, content, tmp_path, caplog):
    """In a file of their own, in a field, by name or number; in any order of the members."""
    video = encoded[0]
    members = {
        "1.json": b'{"label": "walk", "caption": "c"}', "1.mp4": video,
        "2.webm": video, "2.cls": b"run\n", "2.json": b'{"label": "walk"}', "2.avi": video,
        "3.mp4": video, "3.json": b'{"class": ["run"]}',
        "4.mp4": video, "4.txt": b"swim", "5.mp4": video, "5.json": b'{"caption": "swim"}',
        "6.MP4": video, "6.cls": b"walk",
    }  # fmt: skip
    shard = write_tar(tmp_path / "a.tar", members.items())
    videos = open_videos(shard)
    assert videos.classes == ("run", "walk")
    assert content(videos) == [("1.mp4", 1), ("2.webm", 0), ("3.mp4", 0), ("6.MP4", 1)]
    unlisted = [f"{shard}:{name}" for name in ("4.mp4", "5.mp4", "2.avi")]
    assert sorted(videos.unlisted) == sorted(unlisted)
    assert unlisted[0] in caplog.text
    videos = open_videos(shard, classes=["swim", "run", "walk"])
    assert dict(content(videos)) == {"1.mp4": 2, "2.webm": 1, "3.mp4": 1, "6.MP4": 2}
    with pytest.raises(ValueError, match=r"a\.tar:2\.webm.*'run'"):
        open_videos(shard, classes=["walk"])
