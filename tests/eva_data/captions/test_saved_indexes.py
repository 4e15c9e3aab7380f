"""Indexes of shards that runs save: built once, by one process, and what they notice."""

import os

import numpy as np
import pytest

from eva_data import tar
from eva_data.captions import shards as caption_shards
from eva_data.captions.sources import open_captions
from eva_data.image_sources import open_images


@pytest.fixture
def shards(tmp_path, write_tar, png):
    """Pattern of four shards of 0 to 3 pairs and an image without a caption each."""
    (tmp_path / "data").mkdir()
    for number in range(4):
        members = [(f"{number}lonely.png", png())]
        for pair in range(number):
            members += [(f"{number}/é{pair}.png", png(pair)), (f"{number}/é{pair}.txt", b"text")]
        write_tar(tmp_path / f"data/{number}.tar", members)
    return tmp_path / "data/{0..3}.tar"


@pytest.fixture
def read(monkeypatch):
    """Names of the shards whose headers have been read."""
    names = []

    def note(shard, suffixes):
        names.append(shard.name)
        return tar.group_members(shard, suffixes)

    monkeypatch.setattr(caption_shards, "group_members", note)
    return names


def test_a_saved_index_equals_the_one_in_memory(shards, tmp_path, read, listed, left_out):
    expected = open_captions(shards)
    for _ in range(2):
        pairs = open_captions(shards, indexes=tmp_path / "indexes")
        assert listed(pairs) == listed(expected)
        assert pairs.checksum() == expected.checksum()
        assert left_out(pairs) == left_out(expected)
        assert {name: array.dtype for name, array in pairs.table.items()} == {
            name: array.dtype for name, array in expected.table.items()
        }
        assert isinstance(pairs.table["offset"], np.memmap)
    assert sorted(read[4:]) == [
        f"{number}.tar" for number in range(4)
    ]  # the third start reads none
    with pytest.raises(ValueError, match="no pair"):  # of another setting, which has its own
        open_captions(shards, caption_column="caption", indexes=tmp_path / "indexes")


def test_a_changed_shard_is_read_again_alone(shards, tmp_path, read, write_tar, png):
    open_captions(shards, indexes=tmp_path / "indexes")
    del read[:]
    members = [("other.png", png()), ("other.txt", b"other")]
    write_tar(shards.parent / "1.tar", members)
    os.utime(shards.parent / "1.tar", (1, 1))
    pairs = open_captions(shards, indexes=tmp_path / "indexes")
    assert read == ["1.tar"]
    assert pairs.checksum() == open_captions(shards).checksum()


def test_an_interruption_keeps_the_shards_that_were_read(shards, tmp_path, read, monkeypatch):
    noting = caption_shards.group_members

    def interrupt(shard, suffixes):
        if len(read) == 2:
            raise KeyboardInterrupt
        return noting(shard, suffixes)

    with monkeypatch.context() as patch:
        patch.setattr(caption_shards, "group_members", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_captions(shards, indexes=tmp_path / "indexes")
    open_captions(shards, indexes=tmp_path / "indexes")
    assert sorted(read) == [f"{number}.tar" for number in range(4)]


def test_a_damaged_index_is_built_again(shards, tmp_path):
    for _ in range(2):
        pairs = open_captions(shards, indexes=tmp_path / "indexes")
        assert len(pairs) == 6
        for file in (tmp_path / "indexes").glob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:-1])


def test_images_of_shards_are_indexed_once(shards, tmp_path, monkeypatch):
    expected = open_images(shards).checksum()
    assert open_images(shards, indexes=tmp_path / "indexes").checksum() == expected
    monkeypatch.delattr(tar, "find_members")
    assert open_images(shards, indexes=tmp_path / "indexes").checksum() == expected
