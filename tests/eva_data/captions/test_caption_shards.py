"""Pairs in tar shards: which there are, what is left out, what is an error when it is read."""

import json
import tarfile

import pytest
import webdataset
from PIL import Image
from webdataset import tariterators

from eva_data.captions.lists import UnreadableCaptionError
from eva_data.captions.sources import open_captions


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
    assert not pairs.left_out.problems


def test_what_makes_no_pair_is_counted_and_named(
    tmp_path, write_tar, png, listed, left_out, caplog
):
    picture = png()
    file = write_tar(
        tmp_path / "a.tar",
        [
            ("good.png", picture),
            ("alone.png", picture),
            ("empty.png", picture), ("empty.txt", b""),
            ("nopicture.txt", b"text"),
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
    assert left_out(pairs) == {
        "uncaptioned": [f"{file}:alone.png"],
        "unpictured": [f"{file}:nopicture.txt"],
        "dotted": [f"{file}:dots.a.png"],
        "empty": [f"{file}:empty.png"],
        "duplicate": [f"{file}:twice.png", f"{file}:two.png"],
    }
    assert f"1 x image without a caption: {file}:alone.png" in caplog.text


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ({"caption": "a"}, ("a",)),
        ({"caption": ["a", "b "]}, ("a", "b")),
        ({"caption": None, "title": "t"}, ("t",)),
        ('\ufeff{"caption": "marked"}', ("marked",)),
        ({"caption": None}, None),
        ({"caption": {"en": "a"}}, None),
        ('{"caption": "\\ud800"}', None),
        ('{"caption":' + "[" * 100_000 + "}", None),
        ("9" * 10_000, None),
        (b'{"caption": "\xff"}', None),
    ],
)
def test_json_beside_a_picture(tmp_path, write_tar, png, content, captions):
    if isinstance(content, dict):
        content = json.dumps(content)
    content = content.encode() if isinstance(content, str) else content
    good = [("0.png", png()), ("0.json", b'{"caption": "good"}')]
    file = write_tar(tmp_path / "a.tar", [*good, ("1.png", png()), ("1.json", content)])
    pairs = open_captions(file)
    assert pairs.captions(0) == ("good",)
    if captions is not None:
        assert pairs.captions(1) == captions
        return
    with pytest.raises(UnreadableCaptionError, match=r"a\.tar:1\.png"):
        pairs.captions(1)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_that_was_replaced_gives_no_wrong_pairs(tmp_path, write_tar, png, kind):
    """Of the same size, so that the index fits: the header before a member has its name."""

    def write(keys):
        members = [
            (f"{key}.{suffix}", content)
            for key in keys
            for suffix, content in (("png", png()), ("txt", f"text {key[-1]}".encode()))
        ]
        write_tar(tmp_path / "a.tar", members, format=kind)

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
    with pytest.raises(OSError, match=r"a\.tar:a\.png"):
        pairs.image(0)
