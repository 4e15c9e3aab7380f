"""The check of pre-training images: findings, index, report, refusals."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as photographs

from eva_command.verify import parse
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
    """One picture of each source cannot be decoded, and one is small."""
    folder = manifest.parent
    (folder / "photos" / "1.jpg").write_bytes(b"no picture")
    Image.new("RGB", (40, 8)).save(folder / "photos" / "3.jpg")
    content = bytearray((folder / "s-0.tar").read_bytes())
    content[512:600] = b"\0" * 88
    (folder / "s-0.tar").write_bytes(content)
    return manifest


def test_clean_set(check, manifest, tmp_path, capsys):
    index = tmp_path / "set.safetensors"
    assert check("--write", index) == 0
    output = capsys.readouterr().out
    assert "photos: 4 images, 4 left" in output
    assert "no problem" in output
    assert f'to use it, write in {manifest}: index = "{index}"' in output
    manifest.write_text(f'index = "{index}"\n' + manifest.read_text())
    images = ManifestImages(manifest)
    assert images.counts == {"photos": 4, "shards": 2}
    assert images[5].shape == (3, 40, 60)
    assert check("--write", index, "--overwrite") == 0
    assert "to use it" not in capsys.readouterr().out


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_images_are_left_out(check, damaged, tmp_path, capsys, workers):
    if workers == 2:
        (tmp_path / "photos" / "2.jpg").unlink()  # less to start processes for
    index, report = tmp_path / "set.safetensors", tmp_path / "report.json"
    assert check("--write", index, "--report", report, workers=workers) == 1
    output = capsys.readouterr().out
    assert "image that cannot be read" in output
    assert "photos/1.jpg: cannot be decoded (no known image format)" in output
    content = json.loads(report.read_text())
    assert {name: one["left"] for name, one in content["sources"].items()} == {
        "photos": 4 - workers,
        "shards": 2,
    }
    kinds = {finding["kind"]: finding["ids"] for finding in content["findings"]}
    assert kinds["unreadable"] == [f"{tmp_path}/photos/1.jpg", f"{tmp_path}/s-0.tar:0.png"]
    assert kinds["small"] == [f"{tmp_path}/photos/3.jpg"]
    damaged.write_text(f'index = "{index}"\n' + damaged.read_text())
    images = ManifestImages(damaged)
    ids = [Path(images.sample_id(i)).name for i in range(len(images))]
    left = [f"{number}.jpg" for number in (0, 2, 3) if number != 2 or workers == 1]
    assert ids == [*left, "s-0.tar:1.png", "s-0.tar:2.png"]
    assert images[len(left)].shape == (3, 40, 60)


def test_skip_decode_lists(check, damaged, tmp_path, capsys):
    assert check("--skip-decode", "--write", tmp_path / "index") == 0
    damaged.write_text('index = "index"\n' + damaged.read_text())
    assert len(ManifestImages(damaged)) == 6
    assert "the images were only listed" in capsys.readouterr().out


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


def test_refusals(check, manifest, tmp_path):
    taken = tmp_path / "taken"
    taken.touch()
    for options, message in (
        (["--write", taken], "taken is there already: give --overwrite"),
        (["--write", manifest, "--overwrite"], "is the list"),
    ):
        with pytest.raises(ValueError, match=message):
            check(*options)
    with pytest.raises(SystemExit):
        check("--least-side", "0")
