"""The check of pairs: findings, index, report, refusals."""

import json
import os

import pytest

from eva_command import checking
from eva_command.verify import parse
from eva_data.captions.sources import open_captions


@pytest.fixture
def check():
    """Function: run the command; returns its exit code."""

    def run(location, *options, workers=1):
        arguments = ["captions", location, "--workers", workers, *options]
        args = parse([str(argument) for argument in arguments])
        return checking.run(args)

    return run


@pytest.fixture
def shards(tmp_path, write_tar, png):
    """Pattern of shards 0 to 4: good, with bad pairs, good, cut, missing."""
    write_tar(tmp_path / "0.tar", [("a.png", png(1)), ("a.txt", b"one"), ("b.png", png(2))])
    write_tar(
        tmp_path / "1.tar",
        [
            ("c.png", b"no picture"), ("c.txt", b"x"), ("d.png", png(3)), ("d.txt", b"\xff"),
            ("e.png", png(4)), ("e.txt", b"w " * 56), ("f.txt", b"alone"),
        ],
    )  # fmt: skip
    write_tar(tmp_path / "2.tar", [("g.png", png(5)), ("g.txt", b"two")])
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "3.tar").write_bytes(content[:700])
    return tmp_path / "{0..4}.tar"


def test_shards_with_everything(check, shards, tmp_path, capsys):
    index, report = tmp_path / "i.safetensors", tmp_path / "r.json"
    assert check(shards, "--write", index, "--report", report, workers=2) == 1
    content = json.loads(report.read_text())
    found = {entry["kind"]: (entry["count"], entry["ids"]) for entry in content["findings"]}
    assert found == {
        "missing": (1, [f"{tmp_path}/4.tar"]),
        "damaged": (1, found["damaged"][1]),
        "uncaptioned": (1, [f"{tmp_path}/0.tar:b.png"]),
        "unpictured": (1, [f"{tmp_path}/1.tar:f.txt"]),
        "unreadable": (1, [f"{tmp_path}/1.tar:c.png"]),
        "caption": (1, [f"{tmp_path}/1.tar:d.png"]),
    }
    assert found["damaged"][1][0].startswith(f"{tmp_path}/3.tar is not a tar file, or is damaged")
    assert content["problems"] == 6
    assert content["sources"] == {"pairs": {"pairs": 5, "left": 3}}
    assert "0.tar:b.png" in capsys.readouterr().out
    pairs = open_captions(index)
    assert [pairs.captions(n)[0].split()[0] for n in range(3)] == ["one", "w", "two"]
    assert [pairs.image(n).getpixel((0, 0))[0] for n in range(3)] == [1, 4, 5]


def _edited(file, before, after):
    """Replace a text by one of the same length, in the same second."""
    facts = file.stat()
    file.write_text(file.read_text().replace(before, after))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))


@pytest.mark.parametrize("of", ["list", "manifest"])
def test_the_index_of_a_list_that_was_edited(check, pictures, tmp_path, capsys, of):
    """It would keep the earlier captions; a copied or touched list is the same, so is one gone."""
    table, index = tmp_path / "pairs.csv", tmp_path / "i.safetensors"
    table.write_text("image,caption\n0.png,zero\n1.png,one\n")
    source = table
    if of == "manifest":
        source = tmp_path / "all.toml"
        source.write_text(
            'index = "i.safetensors"\n[[source]]\nname = "a"\ntable = "pairs.csv"\n'
            'root = "pictures"\n'
        )
    given = [source, *(["--root", pictures] if of == "list" else [])]
    assert check(*given, "--write", index) == 0
    location = index if of == "list" else source
    assert open_captions(location).captions(1) == ("one",)
    os.utime(table, ns=(1, 1))
    assert open_captions(location).captions(1) == ("one",)
    _edited(table, "one", "two")
    with pytest.raises(ValueError, match=r"pairs.csv.*i\.safetensors"):
        open_captions(location)
    assert check(*given, "--write", index, "--overwrite") == 0
    assert open_captions(location).captions(1) == ("two",)
    table.unlink()
    assert open_captions(location).captions(1) == ("two",)
