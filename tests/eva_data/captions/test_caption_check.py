"""The check of pairs: findings, index, report, refusals."""

import json
import os

import pytest

from eva_command.verify import parse
from eva_data.captions.opening import open_captions


@pytest.fixture
def check():
    """Function: run the command; returns its exit code."""

    def run(location, *options, workers=1):
        arguments = ["captions", location, "--workers", workers, "--least-side", 5, *options]
        args = parse([str(argument) for argument in arguments])
        return args.run(args)

    return run


@pytest.fixture
def shards(tmp_path, write_shard, png):
    """Pattern of shards 0 to 4: good, with bad pairs, with copies, cut, missing."""
    write_shard(tmp_path / "0.tar", [("a.png", png(1)), ("a.txt", b"one"), ("b.png", png(2))])
    write_shard(
        tmp_path / "1.tar",
        [
            ("c.png", b"no picture"), ("c.txt", b"x"), ("d.png", png(3)), ("d.txt", b"\xff"),
            ("e.png", png(4, (9, 4))), ("e.txt", b"w " * 56), ("f.txt", b"alone"),
        ],
    )  # fmt: skip
    write_shard(
        tmp_path / "2.tar",
        [
            ("g.png", png(1)), ("g.txt", b"one"), ("h.png", png(1)), ("h.txt", b"other"),
            ("i.png", png(5)), ("i.txt", b"one"),
        ],
    )  # fmt: skip
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "3.tar").write_bytes(content[:700])
    return tmp_path / "{0..4}.tar"


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_with_everything(check, shards, tmp_path, capsys, workers):
    index, report = tmp_path / "i.safetensors", tmp_path / "r.json"
    assert check(shards, "--write", index, "--report", report, workers=workers) == 1
    content = json.loads(report.read_text())
    found = {entry["kind"]: (entry["count"], entry["ids"]) for entry in content["findings"]}
    assert found == {
        "missing": (1, [f"{tmp_path}/4.tar"]),
        "damaged": (1, found["damaged"][1]),
        "uncaptioned": (1, [f"{tmp_path}/0.tar:b.png"]),
        "unpictured": (1, [f"{tmp_path}/1.tar:f.txt"]),
        "unreadable": (1, [f"{tmp_path}/1.tar:c.png"]),
        "caption": (1, [f"{tmp_path}/1.tar:d.png"]),
        "twice": (1, [f"{tmp_path}/2.tar:g.png"]),
        "copy": (1, [f"{tmp_path}/2.tar:h.png"]),
        "same_caption": (1, [f"{tmp_path}/2.tar:i.png"]),
        "small": (1, [f"{tmp_path}/1.tar:e.png"]),
        "wordy": (1, [f"{tmp_path}/1.tar:e.png"]),
    }
    assert found["damaged"][1][0].startswith(f"{tmp_path}/3.tar is not a tar file, or is damaged")
    assert content["problems"] == 7
    assert content["sources"] == {
        "pairs": {
            "pairs": 7, "left": 4, "captions": 5, "median_words": 1.0, "most_words": 56,
            "distinct_captions": 3,
        }
    }  # fmt: skip
    output = capsys.readouterr().out
    assert "pairs: 7 pairs, 4 left" in output
    assert "0.tar:b.png" in output
    pairs = open_captions(index)
    assert [pairs.captions(n)[0].split()[0] for n in range(4)] == ["one", "w", "other", "one"]
    assert [pairs.image(n).getpixel((0, 0))[0] for n in range(4)] == [1, 4, 1, 5]


def test_a_clean_table_and_its_index(check, pictures, tmp_path, capsys):
    table = tmp_path / "t.tsv"
    table.write_text("pic\ttitle\n1.png\ta b\n2.png\tc\n1.png\td\n")
    index = tmp_path / "i.safetensors"
    options = ["--root", pictures, "--image-column", "pic"]
    assert check(table, *options, "--write", index) == 0
    assert "no problem" in capsys.readouterr().out
    table.unlink()
    pairs = open_captions(index)
    assert [pairs.captions(n) for n in range(2)] == [("a b", "d"), ("c",)]
    assert pairs.image(1).getpixel((0, 0))[0] == 2


def test_a_manifest(check, pictures, tmp_path, capsys):
    (pictures / "0.txt").write_text("x")
    (tmp_path / "t.tsv").write_text("image\tcaption\n1.png\ta\nno.png\tb\n2.png\tc\n")
    manifest = tmp_path / "m.toml"
    manifest.write_text(
        '[[source]]\nname = "f"\nfolder = "pictures"\n'
        '[[source]]\nname = "t"\ntable = "t.tsv"\nroot = "pictures"\nlimit = 1\n'
    )
    index = tmp_path / "i.safetensors"
    assert check(manifest, "--write", index) == 1
    output = capsys.readouterr().out
    assert f'to use it, write in {manifest}: index = "{index}"' in output
    assert "no.png: is not there" in output.replace(f"{pictures}/", "")
    manifest.write_text(f'index = "{index}"\n' + manifest.read_text())
    assert len(open_captions(manifest)) == 2
    assert check(manifest, "--write", index, "--overwrite", "--skip-decode") == 1
    output = capsys.readouterr().out
    assert "the pairs were only listed" in output
    assert "to use it" not in output
    assert "t: 3 pairs, 3 left" in output


def test_sources_that_cannot_be_used(check, pictures, tmp_path, capsys):
    (tmp_path / "t.tsv").write_text("image\tcaption\nno.png\tb\n")
    index = tmp_path / "i.safetensors"
    assert check(tmp_path / "t.tsv", "--write", index) == 1
    assert "pairs: no sample of it can be read" in capsys.readouterr().out
    assert check(pictures, "--write", index) == 1
    output = capsys.readouterr().out
    assert "holds no pair of an image and a caption (10 x uncaptioned, such as" in output
    assert "i.safetensors was not written" in output
    assert not index.exists()


def test_refusals(check, shards, tmp_path):
    (taken := tmp_path / "taken.safetensors").touch()
    (table := tmp_path / "t.safetensors.csv").write_text("image\tcaption\n")
    (manifest := tmp_path / "m.toml").write_text('[[source]]\nname = "f"\nfolder = "x"\n')
    for location, options, message in (
        (shards, ["--write", taken], r"taken\.safetensors is there already: give --overwrite"),
        (table, ["--report", table, "--overwrite"], "is the list: it is never overwritten"),
        (shards, ["--write", tmp_path / "i.index"], r"--write must end in \.safetensors, got"),
        (taken, [], "is an index: name the data that it was written of"),
        (manifest, ["--caption-column", "x"], "caption_column belongs below a source of"),
    ):
        with pytest.raises(ValueError, match=message):
            check(location, *options)


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
    message = r"pairs.csv has changed since its index .*i\.safetensors was written: write it again"
    with pytest.raises(ValueError, match=message):
        open_captions(location)
    assert check(*given, "--write", index, "--overwrite") == 0
    assert open_captions(location).captions(1) == ("two",)
    table.unlink()
    assert open_captions(location).captions(1) == ("two",)


def test_the_index_of_another_split(check, pictures, tmp_path):
    entries = [
        {"image": f"{number}.png", "caption": f"{number}", "split": split}
        for number, split in enumerate(("train", "val"))
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(entries))
    manifest = tmp_path / "all.toml"
    text = '[[source]]\nname = "a"\ntable = "pairs.json#train"\nroot = "pictures"\n'
    manifest.write_text(text)
    assert check(manifest, "--write", tmp_path / "i.safetensors") == 0
    manifest.write_text('index = "i.safetensors"\n' + text)
    assert open_captions(manifest).captions(0) == ("0",)
    manifest.write_text('index = "i.safetensors"\n' + text.replace("#train", "#val"))
    with pytest.raises(ValueError, match=r"the part train of .*, and val is asked for"):
        open_captions(manifest)
