"""Classifiers of images with more than three bands: trained, kept, evaluated, shown."""

import json
import shutil

import numpy as np
import pytest
import tifffile
import torch
from sklearn.datasets import load_digits

from eva_classification.commands import demo, evaluate, export, train
from eva_classification.inference.predictor import Predictor
from eva_command.convert import main as convert
from eva_engine import distributed


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "stop", lambda *_: None)  # other tests need the group
        for name in ("RANK", "WORLD_SIZE"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Digits 0 and 1 in band 4 of 5 as 16-bit TIFF; the others are noise."""
    folder = tmp_path_factory.mktemp("bands")
    images, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    for digit in (0, 1):
        for number, values in enumerate(images[labels == digit][:40]):
            pixels = random.integers(0, 3000, (32, 32, 5), dtype=np.uint16)
            pixels[..., 3] += np.kron(values.reshape(8, 8) * 600, np.ones((4, 4))).astype(np.uint16)
            file = folder / ("train" if number < 30 else "val") / str(digit) / f"{number}.tif"
            file.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(file, pixels, photometric="minisblack", planarconfig="contig")
    return folder


def _words(data, output, *more):
    return [
        *("eva_debug_digits", "--data.train", str(data / "train"), "--data.val", str(data / "val")),
        *("--image-size", "32", "--epochs", "6", "--run.batch-size", "10", "--run.workers", "0"),
        *("--run.device", "cpu", "--output", str(output), "--run.no-tensorboard", *more),
    ]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ("--bands", "5", "--band-range", "0:12600", "--show-bands", "4,2,1")
    assert train(_words(data, folder, *words)) in (0, None)
    return folder


@pytest.mark.slow
def test_a_run_keeps_bands_and_others_use_them(run, data, tmp_path, capsys):
    noted = json.loads((run / "config.json").read_text())["bands"]
    assert noted["high"] == [12600] * 5
    assert noted["mean"][3] > 1.2 * noted["mean"][0]
    page = (run / "report.html").read_text()
    assert "drawn are bands 4, 2, 1" in page
    assert "patch_embed.proj.weight" in (run / "log.txt").read_text()
    words = ["--weights", str(run), "--data", str(data / "val"), "--device", "cpu"]
    assert evaluate([*words, "--output", str(tmp_path / "scores"), "--workers", "0"]) in (0, None)
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert results["sets"]["data"]["top1"] >= 90
    assert demo(
        ["--weights", str(run), str(data / "val" / "1"), "--output", str(tmp_path / "named")]
    ) in (0, None)
    assert len([*(tmp_path / "named").glob("*.png")]) == 10


@pytest.mark.slow
def test_a_predictor_takes_files_and_arrays_of_bands_alone(run, data):
    predictor = Predictor.from_run(run, device="cpu")
    file = next((data / "val" / "0").iterdir())
    pixels = tifffile.imread(file)
    assert predictor(file) == predictor(pixels)
    assert predictor.model.in_channels == 5
    with pytest.raises(ValueError, match=r"4.*5"):
        predictor(pixels[..., :4])


@pytest.mark.slow
def test_a_file_for_onnxruntime_has_the_bands_and_other_programs_are_refused(
    run, data, tmp_path, capsys
):
    file = tmp_path / "bands.onnx"
    assert export(["--weights", str(run), "--output", str(file)]) in (0, None)
    session = pytest.importorskip("onnxruntime").InferenceSession(file)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["preparation"])
    predictor = Predictor.from_run(run, device="cpu")
    assert facts["bands"] == predictor.bands.as_json()
    assert facts["shape"] == [5, 32, 32]
    images = [next((data / "val" / digit).iterdir()) for digit in "01"]
    prepared = torch.stack([predictor.prepare(image) for image in images])
    (logits,) = session.run(["logits"], {"images": prepared.numpy()})
    np.testing.assert_allclose(logits, predictor.model(prepared).detach(), atol=1e-4)
    capsys.readouterr()
    for program in ("timm", "transformers"):
        with pytest.raises(SystemExit):
            convert([str(run), "--to", program, "--output", str(tmp_path / program)])
        assert "5 bands" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_continues_has_its_bands(run, data, tmp_path, capsys):
    copy, dark = tmp_path / "run", tmp_path / "dark"
    shutil.copytree(run, copy)
    shutil.copytree(data, dark)
    for file in dark.rglob("*.tif"):
        pixels = tifffile.imread(file) // 2
        tifffile.imwrite(file, pixels, photometric="minisblack", planarconfig="contig")
    words = ["--resume", "--bands", "5", "--show-bands", "4,2,1"]
    assert train(_words(dark, copy, *words)) in (0, None)
    before, after = (json.loads((path / "config.json").read_text()) for path in (run, copy))
    assert after["bands"] == before["bands"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train(_words(dark, copy, *words, "--band-range", "0:99"))
    line = capsys.readouterr().err
    assert "0:99" in line
    assert "0 to 12600" in line


def test_bad_data_are_named_before_a_training(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(_words(data, tmp_path / "a", "--bands", "4"))
    assert "has 5 bands" in capsys.readouterr().err
