"""Folders, manifests and indexes of pairs, and refusals."""

import os
import pickle

import pytest

from eva_data.captions.lists import UnreadableCaptionError
from eva_data.captions.sources import PAIRS, open_captions, open_source
from eva_data.manifests import Manifest, write_index


@pytest.fixture
def folder(pictures):
    """The pictures 0 to 6 with a text file each."""
    for number in range(7):
        (pictures / f"{number}.txt").write_text(f"text {number}\n")
    return pictures


@pytest.fixture
def mixed(tmp_path, folder, write_tar, png):
    """A manifest of two shards of 2 pairs, a table of 3 pictures and the folder of 7."""
    for shard in range(2):
        members = [m for n in range(2) for m in ((f"{n}.png", png(n)), (f"{n}.txt", b"in shard"))]
        write_tar(tmp_path / f"s-{shard}.tar", members)
    (tmp_path / "t.csv").write_text(
        "image,a,b\n8.png,x,right\n8.png,y,again\n9.png,z,q\n0.png,,r\n"
    )
    file = tmp_path / "mixed.toml"
    file.write_text(
        '[[source]]\nname = "shards"\nshards = "s-{0..1}.tar"\nweight = 2.0\n'
        '[[source]]\nname = "table"\ntable = "t.csv"\nroot = "pictures"\ncaption_column = "b"\n'
        '[[source]]\nname = "folder"\nfolder = "pictures"\nlimit = 3\n'
    )
    return file


def test_folder(folder, left_out):
    (folder / "empty.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "empty.txt").touch()
    (folder / "alone.txt").write_text("x")
    (folder / "sub").mkdir()
    (folder / "sub" / "a.b.PNG").write_bytes((folder / "0.png").read_bytes())
    (folder / "sub" / "a.b.txt").write_text("dots")
    pairs = open_captions(folder)
    assert [pairs.sample_id(n) for n in (6, 7, 8)] == [
        str(folder / name) for name in ("6.png", "empty.png", "sub/a.b.PNG")
    ]
    assert (pairs.captions(6), pairs.captions(8)) == (("text 6",), ("dots",))
    assert left_out(pairs) == {
        "uncaptioned": [str(folder / f"{n}.png") for n in (7, 8, 9)],
        "unpictured": [str(folder / "alone.txt")],
    }
    with pytest.raises(UnreadableCaptionError, match=r"empty\.txt"):
        pairs.captions(7)
    for change, message in (
        (lambda file: file.write_bytes(b"\xff"), r"0\.txt.*utf-8"),
        (lambda file: file.unlink(), "is not there"),
        (os.mkfifo, "is a named pipe and not a file"),
    ):
        change(folder / "0.txt")
        with pytest.raises(UnreadableCaptionError, match=message):
            pairs.captions(0)


def test_manifest_mixes_weights_limits_and_columns(mixed, listed):
    pairs = open_captions(mixed)
    assert [line[1:] for line in listed(pairs)] == [
        *[("in shard",)] * 8, ("right", "again"), ("q",), ("r",),
        ("text 0",), ("text 2",), ("text 4",),
    ]  # fmt: skip
    ids = [pairs.sample_id(n).rpartition("/")[2] for n in range(8)]
    each = [f"s-{shard}.tar:{n}.png" for shard in range(2) for n in range(2)]
    assert ids == [name for name in each for _ in range(2)]
    assert pairs.image(9).getpixel((0, 0))[0] == 9
    with pytest.raises(IndexError):
        pairs.captions(14)


def index(manifest, file):
    manifest = Manifest.read(manifest, form=PAIRS)
    tables = {entry.name: open_source(entry).table for entry in manifest.sources}
    write_index(file, tables, manifest)


def test_an_index_gives_the_same_without_a_look_at_the_shards(mixed, tmp_path, listed, monkeypatch):
    expected = open_captions(mixed)
    file = tmp_path / "mixed.safetensors"
    index(mixed, file)
    text = mixed.read_text()
    mixed.write_text('index = "mixed.safetensors"\n' + text)
    for reader in ("shards.group_members", "sources.pairs_of_list", "sources.find_files"):
        monkeypatch.setattr(f"eva_data.captions.{reader}", None)
    for location in (mixed, file):
        pairs = open_captions(location)
        assert listed(pairs) == listed(expected)
        assert pairs.checksum() == expected.checksum()
        copy = pickle.dumps(pairs)
        assert len(copy) < 3000  # its arrays stay in the file
        assert listed(pickle.loads(copy)) == listed(expected)
    mixed.write_text(mixed.read_text().replace("limit = 3", "limit = 2"))
    assert len(open_captions(mixed)) == 13
    mixed.write_text(mixed.read_text().replace('name = "folder"', 'name = "other"'))
    with pytest.raises(ValueError, match=r"data verify captions"):
        open_captions(mixed)
    (tmp_path / "s-1.tar").write_bytes(b"\0" * 1024)
    with pytest.raises(ValueError, match=r"s-1\.tar"):
        open_captions(file)
