"""Small files that others made end a program within seconds, with an error that names them."""

import io
import json
import os
import shutil
import struct
import tarfile

import pytest
from PIL import Image

LIMIT = 5  # seconds; each of these took a minute or more, or all memory


def _member(name, size=0, *, kind=tarfile.REGTYPE, content=b"", claimed=None):
    """A member of a tar file, which may claim another size than it has."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size or len(content), kind
    head = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    if claimed is not None:
        head[124:136] = claimed.to_bytes(12, "big", signed=True)
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512)


SHARDS = {
    "a negative size": _member("1.jpg", claimed=-512),
    "3,000 long names in a row": 3_000
    * _member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, content=b"n\0"),
}


@pytest.fixture
def verify(run, fails):
    """Function: `eva data verify` of a kind of data ends in time and names the file."""

    def check(kind, path, name):
        words = ("eva", "data", "verify", kind, path, "--workers", 1)
        fails(run(*words, code=None, timeout=LIMIT), name)

    return check


@pytest.mark.parametrize("what", SHARDS)
def test_a_shard(verify, tmp_path, what):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    good = _member("0.jpg", content=stream.getvalue()) + _member("0.txt", content=b"a pair")
    file = tmp_path / "shard.tar"
    file.write_bytes(good + SHARDS[what] + _member("1.jpg", content=b"x") + bytes(1024))
    verify("captions", file, "shard.tar")


def test_weights_of_700000_names(run, fails, engine_data, tmp_path):
    entry = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    names = ("{" + ",".join(f'"a{n}":{entry}' for n in range(700_000)) + "}").encode()
    file = tmp_path / "names.safetensors"
    file.write_bytes(struct.pack("<Q", len(names)) + names)
    words = ("--weights", file, "--output", tmp_path / "out", engine_data / "folder/val")
    fails(run("eva", "classification", "demo", *words, code=None, timeout=LIMIT), file.name)


def test_a_pipe_among_images_and_in_place_of_a_table(run, fails, engine_data, tmp_path):
    shutil.copytree(engine_data / "folder/val", tmp_path / "val")
    os.mkfifo(tmp_path / "val/3/pipe.png")
    run("eva", "data", "verify", "folders", tmp_path / "val", "--workers", 1, code=None, timeout=20)
    os.mkfifo(tmp_path / "pairs.csv")
    words = ("eva", "data", "verify", "captions", tmp_path / "pairs.csv", "--workers", 1)
    fails(run(*words, code=None, timeout=20), "pairs.csv")
