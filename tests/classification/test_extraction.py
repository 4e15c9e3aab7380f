"""Features in files: the same as in memory, in shards, continued, and refused when they differ."""

import os
import signal
import time

import pytest
import torch
from safetensors import SafetensorError

from eva_backbone import eva_debug
from eva_classification.commands import VIT_FEATURES
from eva_classification.features import FeatureExtractor
from eva_engine.commands.extraction import extraction_command
from eva_engine.extraction import read_features
from eva_runs.output_folder import locked

main = extraction_command("eva extract", [VIT_FEATURES], about="Write.")
NUMBER = 11  # pictures of the fixture `digits`
SMALL = str(3 * 2 * 128 / 2**20)  # MiB of three vectors in fp16


@pytest.fixture
def extract(digits, tmp_path):
    """Function: run the command on real digits; gives the folder of the files."""

    def run(*more, images=(digits,), output="features"):
        folder = tmp_path / output
        main([
            "--weights", "eva_debug", "--image-size", "32", "--workers", "0", "--device", "cpu",
            "--batch-size", "2", "--output", str(folder), "--images", *map(str, images), *more,
        ])  # fmt: skip
        return folder

    return run


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor.from_weights("eva_debug", image_size=32, device="cpu")


@pytest.fixture(scope="module")
def paths(digits):
    return sorted(str(path) for path in digits.rglob("*.png"))


@pytest.mark.parametrize("kind", ["pooled", "patches"])
def test_files_hold_what_python_gives(extract, extractor, paths, kind, capsys):
    folder = extract("--kind", kind, "--store", "fp32")
    names, features = read_features(folder)
    assert names == paths
    expected = extractor(paths) if kind == "pooled" else extractor.patches(paths)
    torch.testing.assert_close(features, expected)
    assert f"of {NUMBER} images in 1 files" in capsys.readouterr().out


def test_a_file_is_no_larger_than_wanted(extract, paths):
    folder = extract("--file-mb", SMALL)
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    assert files == [f"features-0000{number}-of-00004.safetensors" for number in range(4)]
    assert read_features(folder).names == paths
    whole = read_features(extract(output="whole")).features
    torch.testing.assert_close(read_features(folder).features, whole, atol=2e-3, rtol=2e-3)


def test_an_interrupted_run_is_continued(extract, monkeypatch):
    folder = extract("--file-mb", SMALL)
    before = read_features(folder)
    kept = folder / "features-00001-of-00004.safetensors"
    for file in folder.glob("features-*"):
        if file != kept:
            file.unlink()
    stamp = kept.stat().st_mtime_ns
    with pytest.raises(ValueError, match="lacks 3 of 4 files, such as features-00000-of-00004"):
        read_features(folder)
    seen = []
    compute = FeatureExtractor.forward
    monkeypatch.setattr(
        FeatureExtractor, "forward", lambda self, x: (seen.append(len(x)), compute(self, x))[1]
    )
    extract("--file-mb", SMALL)
    assert sum(seen) == NUMBER - 3
    assert kept.stat().st_mtime_ns == stamp
    after = read_features(folder)
    assert after.names == before.names
    assert torch.equal(after.features, before.features)


def test_nothing_half_written_is_left(extract, monkeypatch, tmp_path, refused):
    def fail(weights, file, metadata):
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    message = r"features-00000-of-00001.safetensors cannot be written: No space left on device$"
    with refused(message):
        extract()
    assert visible(tmp_path / "features") == ["features.json"]


def visible(folder):
    return sorted(file.name for file in folder.iterdir() if file.name != ".lock")


def test_a_folder_that_is_in_use_is_refused(extract, tmp_path, refused):
    """As another process that writes features would find it."""
    with (tmp_path / "ready").open("w+") as ready:
        child = os.fork()
        if not child:
            with locked(tmp_path / "features"):
                ready.write("x")
                ready.flush()
                signal.pause()
        while not (tmp_path / "ready").stat().st_size:
            time.sleep(0.01)
    try:
        with refused(r"features is in use by another run \(process \d+ on"):
            extract()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert visible(tmp_path / "features") == []


def test_other_pictures_want_another_folder(extract, paths, refused):
    extract()
    with refused("samples 11 -> 2"):
        extract(images=paths[:2])
    with refused(r"other settings \(names"):
        extract(images=paths[::-1])


def test_other_weights_of_the_same_name_want_another_folder(extract, tmp_path, refused):
    for number in (1, 2):
        torch.manual_seed(number)
        weights = tmp_path / f"run{number}" / "model.pt"
        weights.parent.mkdir()
        torch.save(eva_debug(img_size=32).state_dict(), weights)
    extract("--weights", str(tmp_path / "run1" / "model.pt"))
    with refused(r"other settings \(sha256"):
        extract("--weights", str(tmp_path / "run2" / "model.pt"))


def test_what_a_killed_process_left_is_removed(extract, tmp_path):
    folder = extract()
    (folder / ".features-00000-of-00001.writing-77.safetensors").write_bytes(b"half")
    extract()
    assert visible(folder) == [
        "features-00000-of-00001.safetensors", "features.json",
    ]  # fmt: skip


def test_pictures_that_cannot_be_read(extract, paths, tmp_path, capsys, refused):
    bad = tmp_path / "torn.png"
    bad.write_bytes(b"torn")
    pictures = [*paths[:2], bad, paths[2]]
    with refused(r"torn\.png cannot be decoded.*--skip-unreadable"):
        extract(images=pictures)
    names, features = read_features(extract("--skip-unreadable", images=pictures))
    assert names == paths[:3]
    assert features.shape == (3, 128)
    shown = capsys.readouterr()
    assert "1 images could not be read and were left out:" in shown.err
    assert "of 3 images" in shown.out
    folder = extract(
        "--skip-unreadable", "--file-mb", "0.00001", images=[bad, paths[0]], output="b"
    )
    assert read_features(folder).names == paths[:1]


def test_features_beyond_half_precision_are_refused(extract, monkeypatch, refused):
    compute = FeatureExtractor.forward
    monkeypatch.setattr(FeatureExtractor, "forward", lambda self, x: 1e6 * compute(self, x))
    with refused(r"features of .*png are not finite in .*16: use"):
        extract()


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_damaged_files_are_named(extract, share):
    folder = extract()
    file = folder / "features-00000-of-00001.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"{file.name} cannot be read .*delete it"):
        read_features(folder)
    (folder / "features.json").write_text('{"samples": []}')
    with pytest.raises(ValueError, match=r"holds no features: features\.json cannot be read"):
        read_features(folder)
