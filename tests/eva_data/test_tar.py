"""Random access into tar shards: places, patterns, the index file, damaged shards."""

import contextlib
import gzip
import io
import os
import re
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from eva_data.captions.sources import open_captions
from eva_data.files import IMAGE_SUFFIXES
from eva_data.image_sources import decode_image, open_images, open_source
from eva_data.images import UnreadableImageError
from eva_data.index import Table
from eva_data.labelled_videos.sources import open_videos
from eva_data.manifests import SourceEntry
from eva_data.tar import expand_shards, find_members, shard_pattern

EXTRA = {"txt": b"a caption", "json": b"{}", "mask.png": b"no picture of its own"}


@pytest.fixture(scope="module")
def pictures():
    """Encoded crops of a photograph: (key, extension) -> bytes."""
    image = Image.fromarray(photographs.coffee()).resize((60, 40))
    contents = {}
    for number in range(7):
        stream = io.BytesIO()
        kind, extension = (("PNG", "png"), ("JPEG", "JPG"))[number % 2]
        image.crop((number, 0, 30 + number, 40)).save(stream, kind)
        contents[f"{number:06d}", extension] = stream.getvalue()
    return contents


@pytest.fixture
def shards(pictures, write_tar, tmp_path):
    """Two shards of four and three pictures; the second has a folder and a long name."""
    for shard, (start, stop) in enumerate(((0, 4), (4, 7))):
        members, prefix = [], "folder/" + "n" * 120 if shard else ""
        for (key, extension), content in list(pictures.items())[start:stop]:
            of_key = {extension: content} | EXTRA
            members += [(f"{prefix}{key}.{suffix}", part) for suffix, part in of_key.items()]
        write_tar(tmp_path / f"s-{shard:02d}.tar", members)
    return str(tmp_path / "s-{00..01}.tar")


def opened_by(pattern, table):
    return open_source(SourceEntry(name="a", kind="shards", location=str(pattern)), table)


def test_every_picture_at_its_place(shards, pictures):
    images = open_images(shards)
    assert [images.files.read(index) for index in range(len(images))] == list(pictures.values())
    assert images.sample_id(1) == shards.replace("{00..01}", "00") + ":000001.JPG"
    assert images.sample_id(4).endswith("s-01.tar:folder/" + "n" * 120 + "000004.png")
    for index, content in enumerate(pictures.values()):
        assert torch.equal(images[index], decode_image(content))
    assert torch.equal(open_images(shards, lambda image: image[0])[6], images[6][0])
    with pytest.raises(IndexError):
        images[7]


def test_patterns(tmp_path):
    for name in ("a-08", "a-09", "a-10", "b"):
        (tmp_path / f"{name}.tar").touch()
    folder = str(tmp_path)

    def names(*patterns):
        return [path.stem for pattern in patterns for path in expand_shards(f"{folder}/{pattern}")]

    assert names("a-{08..10}.tar") == ["a-08", "a-09", "a-10"]
    assert names("{b,a-09}.tar") == ["b", "a-09"]
    assert names("b.tar", "a-*.tar") == ["b", "a-08", "a-09", "a-10"]
    assert names("a-0{8..9}.tar", "a-{10..10}.tar") == ["a-08", "a-09", "a-10"]
    with pytest.raises(ValueError, match=r"there is no shard .*a-11\.tar \(of .*\{10\.\.11\}"):
        names("a-{10..11}.tar")
    for wrong in ("c*.tar", "a-{2..1}.tar"):
        with pytest.raises(ValueError, match=re.escape(wrong)):
            names(wrong)


def test_a_folder_of_shards_and_nothing_else_stands_for_them(tmp_path):
    """As img2dataset leaves it; where archives lie beside what is in them, that is read."""
    folder = tmp_path / "[1]"
    for name in ("0.tar", "1.tar", "0_stats.json", "0.parquet", "_tmp/0.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    pattern = shard_pattern(folder)
    assert pattern
    assert [path.name for path in expand_shards(pattern)] == ["0.tar", "1.tar"]
    for others in ("a/0.jpg", "a.jpg", "a.mp4"):
        (folder / others).parent.mkdir(exist_ok=True)
        (folder / others).touch()
        assert shard_pattern(folder) is None
        (folder / others).unlink()
        if "/" in others:
            (folder / others).parent.rmdir()
    folder = folder.rename(tmp_path / "{1,2}")
    assert shard_pattern(folder) is None, "a pattern would expand its name"
    (folder / "2.TAR").touch()
    assert shard_pattern(folder / "_tmp") is None
    assert shard_pattern(folder / "0_stats.json") is None


@pytest.mark.parametrize("opened", [open_images, open_captions, open_videos])
def test_a_folder_of_shards_is_opened_as_its_shards(opened, write_tar, pictures, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    suffix = "mp4" if opened is open_videos else "jpg"
    media = (f"0.{suffix}", pictures["000001", "JPG"])
    write_tar(folder / "0.tar", [media, ("0.txt", b"a cup"), ("0.cls", b"0")])
    assert len(opened(folder)) == 1


def test_pipes_are_no_shards(shards, tmp_path):
    images = open_images(shards)
    (tmp_path / "s-00.tar").unlink()
    os.mkfifo(tmp_path / "s-00.tar")
    os.mkfifo(tmp_path / "pipe.tar")
    for pattern in ("pipe.tar", "s-{00..00}.tar", "pi*.tar"):
        with pytest.raises(ValueError, match="there is no shard"):
            expand_shards(str(tmp_path / pattern))
    with pytest.raises(ValueError, match=r"pipe\.tar"):
        list(find_members(tmp_path / "pipe.tar", IMAGE_SUFFIXES))
    with pytest.raises(UnreadableImageError, match=r"s-00\.tar"):
        images[0]


def test_damaged_indexes_are_named(shards, tmp_path):
    """A lost array, a number that fits no shard or place, changed bytes."""
    whole = open_images(shards).table
    whole.save(tmp_path / "index")

    def opened(**changes):
        arrays = {name: whole[name] for name in whole} | changes
        kept = {name: value for name, value in arrays.items() if value is not None}
        return opened_by(shards, Table(kept, whole.about))

    for name in whole:
        with pytest.raises(ValueError, match="the index"):
            opened(**{name: None})
        with pytest.raises(ValueError, match="the index"):
            opened(
                **{name: whole[name][:-1]} if name != "names.bytes" else {"size": whole["size"][1:]}
            )
    for wrong in (-1, 9):
        with pytest.raises(ValueError, match=rf"{wrong}.*2"):
            opened(shard=whole["shard"] * 0 + wrong)[0]
    for name in ("offset", "size"):
        with pytest.raises(UnreadableImageError, match=r"000000\.png"):
            opened(**{name: whole[name] - 2**40})[0]
    content, random = (tmp_path / "index").read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in random.integers(0, 600, 4):
            damaged[place] = random.integers(256)
        (tmp_path / "index").write_bytes(damaged)
        with contextlib.suppress(ValueError, OSError):  # any other error is a traceback
            images = opened_by(shards, Table.open(tmp_path / "index"))
            [images.sample_id(index) for index in range(len(images))]


def test_damaged_shards(shards, write_tar, tmp_path):
    shard = tmp_path / "s-00.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:1500])
    with pytest.raises(ValueError, match=r"s-00\.tar"):
        open_images(str(shard))
    middle = bytearray(content)
    middle[len(content) // 2 // 512 * 512 :] = b"x" * 4096
    shard.write_bytes(middle)
    with pytest.raises(ValueError, match=r"s-00\.tar"):
        open_images(str(shard))
    header = tarfile.TarInfo("a.png")
    for header.size in (1 << 80, 1 << 62, -512):  # of which one leads nowhere, and one back
        shard.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        with pytest.raises(ValueError, match=r"s-00\.tar"):
            open_images(str(shard))
    text = write_tar(tmp_path / "text.tar", [("a.txt", b"x")])
    (tmp_path / "packed.tar").write_bytes(gzip.compress(text.read_bytes()))
    with pytest.raises(ValueError, match=r"packed\.tar"):
        open_images(str(tmp_path / "packed.tar"))
    with pytest.raises(ValueError, match=r"text\.tar"):
        open_images(str(text))


def test_a_shard_that_is_cut_or_zeroed_between_members_is_refused(shards, tmp_path):
    shard = tmp_path / "s-00.tar"
    content = shard.read_bytes()
    starts = [one.offset - 512 for one in find_members(shard, None)]
    for start in (starts[2], starts[-1]):
        zeroed = content[:start] + bytes(512) + content[start + 512 :]
        for damaged in (content[:start], content[: start + 100], zeroed):
            shard.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"s-00\.tar"):
                open_images(str(shard))
    end = max(one.offset + one.size for one in find_members(shards_of(content, shard), None))
    shard.write_bytes(content[: -(-end // 512) * 512 + 512])  # one block of zeros is an end
    open_images(str(shard))


def shards_of(content, shard):
    shard.write_bytes(content)
    return shard


def test_unreadable_members_are_named(shards, tmp_path):
    images = open_images(shards)
    shard = tmp_path / "s-00.tar"
    content = bytearray(shard.read_bytes())
    content[512:600] = b"\0" * 88  # the first picture's header
    shard.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"s-00\.tar:000000\.png"):
        images[0]
    shard.write_bytes(content[:600])
    with pytest.raises(UnreadableImageError, match=r"000001\.JPG"):
        images[1]
    shard.unlink()
    with pytest.raises(UnreadableImageError, match=r"000001\.JPG.*s-00\.tar"):
        images[1]
