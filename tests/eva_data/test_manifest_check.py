"""The check of pre-training images: findings, index, report, refusals."""

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as photographs

from eva_command.verify import main, parse
from eva_data.image_sources import ManifestImages


@pytest.fixture
def check(manifest):
    """Function: run the command; returns its exit code."""

    def run(*options, workers=1):
        arguments = ["images", manifest, "--workers", workers, *options]
        args = parse([str(argument) for argument in arguments])
        return args.run(args)

    return run


@pytest.fixture
def manifest(tmp_path):
    """A folder of four pictures and a shard of three."""
    image = Image.fromarray(photographs.chelsea()).resize((60, 40))
    (tmp_path / "photos").mkdir()
    stream = io.BytesIO()
    for number in range(4):
        image.save(tmp_path / "photos" / f"{number}.jpg")
    image.save(stream, "PNG")
    with tarfile.open(tmp_path / "s-0.tar", "w") as tar:
        for number in range(3):
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(stream.getvalue())
            tar.addfile(entry, io.BytesIO(stream.getvalue()))
    file = tmp_path / "set.toml"
    file.write_text(
        '[[source]]\nname = "photos"\nfolder = "photos"\n'
        '[[source]]\nname = "shards"\nshards = "s-*.tar"\nlimit = 2\n'
    )
    return file


@pytest.fixture
def damaged(manifest):
    """One picture of each source cannot be decoded."""
    folder = manifest.parent
    (folder / "photos" / "1.jpg").write_bytes(b"no picture")
    content = bytearray((folder / "s-0.tar").read_bytes())
    content[512:600] = b"\0" * 88
    (folder / "s-0.tar").write_bytes(content)
    return manifest


def test_damaged_images_are_left_out(check, damaged, tmp_path, capsys):
    index, report = tmp_path / "set.safetensors", tmp_path / "report.json"
    assert check("--write", index, "--report", report) == 1
    output = capsys.readouterr().out
    assert "image that cannot be read" in output
    assert "photos/1.jpg: cannot be decoded (no known image format)" in output
    content = json.loads(report.read_text())
    assert {name: one["left"] for name, one in content["sources"].items()} == {
        "photos": 3,
        "shards": 2,
    }
    kinds = {finding["kind"]: finding["ids"] for finding in content["findings"]}
    assert kinds["unreadable"] == [f"{tmp_path}/photos/1.jpg", f"{tmp_path}/s-0.tar:0.png"]
    damaged.write_text(f'index = "{index}"\n' + damaged.read_text())
    images = ManifestImages(damaged)
    ids = [Path(images.sample_id(i)).name for i in range(len(images))]
    assert ids == ["0.jpg", "2.jpg", "3.jpg", "s-0.tar:1.png", "s-0.tar:2.png"]
    assert images[3].shape == (3, 40, 60)


def test_sources_that_cannot_be_used(check, manifest, tmp_path, capsys):
    for file in (tmp_path / "photos").iterdir():
        file.write_bytes(b"no picture")
    (tmp_path / "s-0.tar").write_bytes(b"no tar file")
    assert check("--write", tmp_path / "index") == 1
    output = capsys.readouterr().out
    assert "photos: no sample of it can be read" in output
    assert "source that cannot be used" in output
    assert "index was not written" in output
    assert not (tmp_path / "index").exists()


def test_names_that_are_not_text_are_printed(tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(b"torn")
    (tmp_path / "set.toml").write_text('[[source]]\nname = "a"\nfolder = "images"\n')
    terminal = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", terminal)
    arguments = ["images", str(tmp_path / "set.toml"), "--workers", "1"]
    assert main(arguments) == 1
    terminal.flush()
    printed = terminal.buffer.getvalue()
    assert b"udcff.png" in printed
    assert b"image that cannot be read" in printed
