"""Shards, tables and lists with random damage: an error of the right kind, and no wrong pair."""

import csv
import io
import json
import random
import re
import tarfile

import pytest

from eva_data.captions.sources import PAIRS, open_captions, open_source
from eva_data.manifests import Manifest, write_index

ROUNDS = 80
INSERTED = (
    *(b'"', b"\n", b"\r", b",", b"\\ud800", b"NaN", b"[" * 2000, b"{", b"null", b"\xff", b"\0"),
)


# Of a list, what is cut out may leave a picture with the text of the next: nothing can see that.
KINDS = {"shard": range(7), "index": range(2), "table": (0, 1, 4, 5), "list": (0, 1, 4, 5)}


def damaged(content, chance, kinds):
    content = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 30])):
        begin = chance.randrange(len(content) or 1)
        end = min(len(content), begin + chance.choice([1, 3, 20, 512, 1024]))
        kind = chance.choice(kinds)
        if kind == 0 and content:
            content[begin] = chance.randrange(ord("9") + 1, 256)
        elif kind == 1:
            content[begin:end] = bytes(end - begin)
        elif kind == 2:
            del content[begin:end]
        elif kind == 3:
            content[begin:begin] = content[begin:end]
        elif kind == 4:
            del content[begin:]
        elif kind == 5:
            content[begin:begin] = chance.choice(INSERTED)
        else:
            content[begin:begin] = chance.randbytes(chance.choice([1, 4, 512]))
    return bytes(content)


def members(png, chance):
    for number in range(10):
        yield f"{number}.png", png(number)
        text = f"number {number} here"
        if chance.random() < 0.7:
            yield f"{number}.txt", text.encode()
        else:
            yield f"{number}.json", json.dumps({"caption": [text], "similarity": 0.3}).encode()


def table(chance):
    stream = io.StringIO()
    ends, quoting = chance.choice(["\n", "\r\n"]), chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    writer = csv.writer(stream, delimiter=chance.choice("\t,;|"), lineterminator=ends,
                        quoting=quoting)  # fmt: skip
    more = ["", ', "so"', "\nin two lines"]
    rows = [[f"{number}.png", f"number {number} here{chance.choice(more)}"] for number in range(10)]
    writer.writerows([["filepath", "title"], *rows])
    return stream.getvalue().encode()


def json_list(chance):
    texts = [(f"{number}.png", f"number {number} here") for number in range(10)]
    forms = (
        [{"image": name, "caption": [text]} for name, text in texts],
        {"images": [{"filename": name, "sentences": [{"raw": text}]} for name, text in texts]},
        {
            "images": [{"id": int(name[0]), "file_name": name} for name, _ in texts],
            "annotations": [{"image_id": int(text[7]), "caption": text} for _, text in texts],
        },
    )
    return json.dumps(chance.choice(forms)).encode()


def pairs_of(location, **options):
    """Yield the pictures' numbers and captions that can be read."""
    try:
        pairs = open_captions(location, **options)
    except (OSError, ValueError):
        return
    for index in range(len(pairs)):
        try:
            captions, picture = pairs.captions(index), pairs.image(index)
        except OSError:
            continue
        if picture.size == (12, 10):
            yield picture.getpixel((0, 0))[0], captions


def assert_right(found):
    """No picture has the caption of another."""
    count = 0
    for number, captions in found:
        for caption in captions:
            assert caption.strip()
            caption.encode()
            others = set(map(int, re.findall(r"number (\d) here", caption))) - {number}
            assert not others, (number, caption)
            count += 1
    return count


@pytest.mark.parametrize("form", ["shard", "table", "list", "index"])
def test_damage_gives_errors_and_no_wrong_pair(form, tmp_path, pictures, write_tar, png):
    chance, read = random.Random(form), 0
    manifest = tmp_path / "m.toml"
    manifest.write_text('[[source]]\nname = "a"\nshards = "a.tar"\n')
    for _ in range(ROUNDS):
        options, location = {}, tmp_path / "a.tar"
        if form in ("shard", "index"):
            file = write_tar(location, members(png, chance))
            if form == "index":
                entry = Manifest.read(manifest, form=PAIRS)
                location = tmp_path / "i.safetensors"
                write_index(location, {"a": open_source(entry.sources[0]).table}, entry)
            content = file.read_bytes()
            file.write_bytes(damaged(content, chance, KINDS[form]))
        else:
            location = tmp_path / ("a.csv" if form == "table" else "a.json")
            content = table(chance) if form == "table" else json_list(chance)
            location.write_bytes(damaged(content, chance, KINDS[form]))
            options = {"root": pictures}
        read += assert_right(pairs_of(location, **options))
    assert read > ROUNDS // 4  # what is sound is read all the same


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_a_member_never_leads_out_of_its_shard(tmp_path, png, kind):
    outside = tmp_path / "secret.png"
    outside.write_bytes(png(7))
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = kind, str(outside)
        shard.addfile(link)
        for name, content in (("1.txt", b"number 1 here"), ("0.png", png(0)), ("0.txt", b"good")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    assert [number for number, _ in pairs_of(tmp_path / "a.tar")] == [0]
