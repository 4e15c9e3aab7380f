"""Pairs in tar shards: which there are, what is left out, what is an error when it is read."""

import gzip
import io
import json
import pickle
import tarfile

import pytest
import webdataset
from PIL import Image
from webdataset import tariterators

from eva_data.captions.lists import UnreadableCaptionError
from eva_data.captions.opening import open_captions
from eva_data.captions.sources import ShardCaptions, index_shards
from eva_data.images import UnreadableImageError
from eva_data.index import CAPTION_KIND, Table
from eva_data.tables import LONGEST


def test_what_webdataset_writes_is_read_in_any_order(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "%05d.tar"), maxcount=4, verbose=0) as writer:
        for number in range(10):
            writer.write(
                {
                    "__key__": f"{number // 4:05d}{number % 4:04d}",
                    "jpg": Image.new("RGB", (9, 8), (20 * number,) * 3),
                    "txt": f"picture {number}, naïve",
                    "json": {"caption": f"in JSON {number}", "width": 9},
                }
            )
    pairs = open_captions(tmp_path / "{00000..00002}.tar")
    assert len(pairs) == 10
    for number in (9, 0, 4, 3, 9):
        assert pairs.captions(number) == (f"picture {number}, naïve",)
        picture = pairs.image(number)
        assert (picture.mode, picture.size) == ("RGB", (9, 8))
        assert abs(picture.getpixel((0, 0))[0] - 20 * number) < 3
    assert pairs.sample_id(5) == f"{tmp_path}/00001.tar:000010001.jpg"
    texts = []
    for file in sorted(tmp_path.iterdir()):
        with file.open("rb") as stream:  # webdataset's own files stay open
            source = [{"stream": stream, "url": str(file)}]
            samples = tariterators.group_by_keys(tariterators.tar_file_expander(source))
            texts += [sample["txt"].decode() for sample in samples]
    assert [pairs.captions(number)[0] for number in range(10)] == texts
    from_json = open_captions(tmp_path / "*.tar", caption_column="caption")
    assert from_json.captions(7) == ("in JSON 7",)
    assert not pairs.left_out.counts


def test_what_makes_no_pair_is_counted_and_named(tmp_path, write_shard, png, listed, caplog):
    picture = png()
    file = write_shard(
        tmp_path / "a.tar",
        [
            ("good.png", picture),
            ("alone.png", picture),
            ("empty.png", picture), ("empty.txt", b""),
            ("nopicture.txt", b"text"),
            ("long.png", picture), ("long.txt", b"a" * (LONGEST + 1)),
            ("twice.png", picture), ("twice.txt", b"one"),
            ("two.png", picture), ("two.jpg", picture), ("two.txt", b"of which?"),
            ("good.txt", b" a good one \n"),  # not a neighbour of its picture
            ("twice.png", picture), ("twice.txt", b"two"),
            ("sub/good.PNG", picture), ("sub/good.txt", b"another"),
            ("good.seg.png", picture),  # a mask
            ("dots.a.png", picture), ("dots.a.txt", b"x"), ("dots.b.png", picture),
        ],
    )  # fmt: skip
    pairs = open_captions(file)
    assert listed(pairs) == [("good.png", "a good one"), ("good.PNG", "another")]
    assert pairs.left_out.counts == {
        "uncaptioned": 1, "empty": 1, "unpictured": 1, "long": 1, "duplicate": 2, "dotted": 1,
    }  # fmt: skip
    assert pairs.left_out.names["duplicate"] == [f"{file}:twice.png", f"{file}:two.png"]
    assert pairs.left_out.names["dotted"] == [f"{file}:dots.a.png"]
    assert f"1 x image without a caption, left out: {file}:alone.png" in caplog.text


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ({"caption": "a"}, ("a",)),
        ({"text": " a "}, ("a",)),
        ({"caption": ["a", "b "]}, ("a", "b")),
        ({"caption": None, "title": "t"}, ("t",)),
        ('\ufeff{"caption": "marked"}', ("marked",)),
        ('{"caption": "a", "similarity": NaN}', ("a",)),
        ({"caption": None}, "has no 'caption' with a caption: it has caption"),
        ({}, "has no 'caption'"),
        ({"caption": " \n"}, "empty caption"),
        ({"caption": ["a", ""]}, "empty caption"),
        ({"caption": []}, "is list .* and not a text"),
        ({"caption": 5}, "is int '5' and not a text"),
        ({"caption": {"en": "a"}}, "is dict"),
        ('{"caption": NaN}', "is float 'nan' and not a text"),
        ('{"caption": "\\ud800"}', "not text in UTF-8"),
        ("[" * 100_000, "is not JSON"),
        ('{"caption":' + "[" * 100_000 + "}", "is not JSON"),
        ("9" * 10_000, "is not JSON"),
        ("[]", "is not an object of JSON"),
        ("{", "is not JSON"),
        (b'{"caption": "\xff"}', "is not JSON"),
    ],
)
def test_json_beside_a_picture(tmp_path, write_shard, png, content, captions):
    if isinstance(content, dict):
        content = json.dumps(content)
    content = content.encode() if isinstance(content, str) else content
    good = [("0.png", png()), ("0.json", b'{"caption": "good"}')]
    file = write_shard(tmp_path / "a.tar", [*good, ("1.png", png()), ("1.json", content)])
    pairs = open_captions(file)
    assert pairs.captions(0) == ("good",)
    if isinstance(captions, tuple):
        assert pairs.captions(1) == captions
    else:
        with pytest.raises(UnreadableCaptionError, match=captions) as raised:
            pairs.captions(1)
        assert f"{file}:1.png" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b" \r\n", "empty caption"),
        (b"caf\xe9", "not UTF-8"),
        (b"a\0\0", "not text in UTF-8"),
        (b"\xef\xbb\xbf", "empty caption"),
    ],
)
def test_text_that_is_no_caption_is_an_error_at_reading(
    tmp_path, write_shard, png, content, problem
):
    members = [("0.png", png()), ("0.txt", b"good"), ("1.png", png()), ("1.txt", content)]
    pairs = open_captions(write_shard(tmp_path / "a.tar", members))
    with pytest.raises(UnreadableCaptionError, match=rf"a\.tar:1\.png: .*{problem}"):
        pairs.captions(1)


def test_a_named_key_is_taken_and_text_files_are_not(tmp_path, write_shard, png, listed):
    members = [
        ("0.png", png()), ("0.txt", b"alt"), ("0.json", b'{"caption": "c", "blip": "b"}'),
        ("1.png", png()), ("1.txt", b"alt alone"),
        ("2.png", png()), ("2.txt", b"alt"), ("2.json", b'{"caption": "c"}'),
    ]  # fmt: skip
    pairs = open_captions(write_shard(tmp_path / "a.tar", members), caption_column="blip")
    assert listed(ShardsUpTo(pairs, 1)) == [("0.png", "b")]
    assert pairs.left_out.names == {"uncaptioned": [f"{tmp_path}/a.tar:1.png"]}
    with pytest.raises(UnreadableCaptionError, match="has no 'blip' with a caption: it has cap"):
        pairs.captions(1)
    with pytest.raises(ValueError, match=r"none of 2 pairs .* no 'blib'.* and the column\?"):
        open_captions(tmp_path / "a.tar", caption_column="blib")


class ShardsUpTo:
    """The first pairs of others."""

    def __init__(self, pairs, length):
        self.pairs, self.length = pairs, length

    def __len__(self):
        return self.length

    def __getattr__(self, name):
        return getattr(self.pairs, name)


def test_pictures_that_cannot_be_read(tmp_path, write_shard, png):
    members = [(f"{n}.png", png()) for n in range(2)] + [(f"{n}.txt", b"t") for n in range(4)]
    members += [("2.png", b""), ("3.png", b"no picture")]
    pairs = open_captions(write_shard(tmp_path / "a.tar", members))
    for number, problem in ((2, "is empty"), (3, "no known image format")):
        with pytest.raises(
            UnreadableImageError, match=rf"a\.tar:{number}\.png {problem}|{problem}"
        ):
            pairs.image(number)
    for call in (pairs.image, pairs.captions, pairs.sample_id):
        for number in (4, -1):
            with pytest.raises(IndexError):
                call(number)


def test_a_shard_that_is_cut_or_gone_after_opening_is_an_error_at_reading(
    tmp_path, write_shard, png
):
    members = [m for n in range(4) for m in ((f"{n}.png", png(n)), (f"{n}.txt", b"text"))]
    file = write_shard(tmp_path / "a.tar", members)
    pairs = open_captions(file)
    content = file.read_bytes()
    file.write_bytes(content[:3000])
    assert pairs.captions(0) == ("text",)
    with pytest.raises(UnreadableCaptionError, match=r"the caption of .*a\.tar:3\.png: the shard"):
        pairs.captions(3)
    with pytest.raises(UnreadableImageError, match=r"a\.tar:3\.png: the shard ends before"):
        pairs.image(3)
    file.unlink()
    with pytest.raises(UnreadableCaptionError, match="is not there"):
        pairs.captions(0)


def test_damaged_compressed_and_missing_shards_are_named(tmp_path, write_shard, png):
    members = [m for n in range(4) for m in ((f"{n}.png", png(n)), (f"{n}.txt", b"text"))]
    good = write_shard(tmp_path / "0.tar", members)
    content = good.read_bytes()
    for name, damaged in (
        ("1.tar", content[:2600]),
        ("2.tar", gzip.compress(content)),
        ("3.tar", b""),
        ("4.tar", b"no tar file" * 100),
        ("5.tar", content[:512] + b"x" * 512 + content[1024:1100]),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name} is not a tar file, or is damaged or compr"):
            open_captions(tmp_path / f"{{0,{name[0]}}}.tar")
    with pytest.raises(ValueError, match=r"there is no shard .*7\.tar"):
        open_captions(tmp_path / "{0..0}.tar") and open_captions(tmp_path / "{7..9}.tar")
    write_shard(tmp_path / "6.tar", [("0.txt", b"text"), ("1.png", png())])
    with pytest.raises(
        ValueError, match=r"holds no pair .*1 x uncaptioned, such as .*6\.tar:1\.png; 1 x unpict"
    ):
        open_captions(tmp_path / "6.tar")


def test_checksum_belongs_to_the_pairs_and_not_to_their_place(tmp_path, write_shard, png):
    def members(order, text=b"text"):
        return [m for n in map(int, order) for m in ((f"{n}.png", png(n)), (f"{n}.txt", text))]

    sums = []
    for name, content in (
        ("a", members("0123")), ("b", members("0123")), ("c", members("1023")),
        ("d", members("012")), ("e", members("0123", b"other text")),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        sums.append(open_captions(write_shard(tmp_path / name / "s.tar", content)).checksum())
    assert sums[0] == sums[1]
    assert len(set(sums)) == 4


def test_a_damaged_index_is_refused_and_pairs_can_be_sent_to_workers(tmp_path, write_shard, png):
    members = [m for n in range(4) for m in ((f"{n}.png", png(n)), (f"{n}.txt", b"text"))]
    file = write_shard(tmp_path / "a.tar", members)
    pairs = open_captions(file)
    copy = pickle.loads(pickle.dumps(pairs))
    assert (copy.captions(3), copy.checksum()) == (("text",), pairs.checksum())
    table = index_shards([file], pairs.left_out)
    for name, change in (("text.size", slice(3)), ("text.json", slice(0))):
        arrays = {**table, name: table[name][change]}
        with pytest.raises(ValueError, match="the index is damaged"):
            ShardCaptions([file], Table(arrays, table.about, kind=CAPTION_KIND))
    arrays = {**table, "text.size": table["text.size"] * 0 + LONGEST + 1}
    wrong = ShardCaptions([file], Table(arrays, table.about, kind=CAPTION_KIND))
    with pytest.raises(UnreadableCaptionError, match="the index is damaged"):
        wrong.captions(0)


def test_workers_that_index_find_the_same(tmp_path, write_shard, png):
    for shard in range(3):
        members = [m for n in range(3) for m in ((f"{n}.png", png(n)), (f"{n}.txt", b"text"))]
        write_shard(tmp_path / f"{shard}.tar", members[: 6 - shard])
    shards = sorted(tmp_path.glob("*.tar"))
    first, second = (
        open_captions(tmp_path / "*.tar").left_out,
        open_captions(tmp_path / "*.tar").left_out,
    )
    one = index_shards(shards, first)
    two = index_shards(shards, second, workers=2)
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)
    assert first.names == second.names


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_that_was_replaced_gives_no_wrong_pairs(tmp_path, png, kind):
    """Of the same size, so that the index fits: the header before a member has its name."""

    def write(keys):
        with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
            for key in keys:
                for suffix, content in (("png", png()), ("txt", f"text {key[-1]}".encode())):
                    entry = tarfile.TarInfo(f"{key}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))

    strange = ["a", "sub/b", "c" * 95 + "/" + "d" * 60, "./e", "ü/f"]
    write(strange)
    pairs = open_captions(tmp_path / "a.tar")
    assert [pairs.captions(n) for n in range(5)] == [(f"text {key[-1]}",) for key in strange]
    assert [pairs.image(n).size for n in range(5)] == [(12, 10)] * 5
    write(["x", *strange[1:]])
    for read in (pairs.captions, pairs.image):
        with pytest.raises(OSError, match=r"a\.tar:a\.png: the shard has 'x\.(png|txt)' there"):
            read(0)
        read(1)
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[512:] + content[:512])
    with pytest.raises(OSError, match="the shard is damaged, or another than"):
        pairs.image(0)
