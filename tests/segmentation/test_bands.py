"""Segmentors of images with more than three bands: trained, kept, evaluated, shown."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from eva_command.convert import main as convert
from eva_command.label import open_model
from eva_segmentation.commands import evaluate, train
from eva_segmentation.inference.demo import main as demo
from eva_segmentation.inference.export import export_segmentor
from eva_segmentation.inference.predictor import Predictor


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six pairs of 32 px with 5 bands of 16 bits, of which the fourth shows the class."""
    folder = tmp_path_factory.mktemp("bands")
    random = np.random.default_rng(0)
    for kind in ("images", "maps"):
        (folder / kind).mkdir()
    for number in range(6):
        classes = random.integers(0, 3, (4, 4), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        pixels = random.integers(0, 900, (32, 32, 5), dtype=np.uint16)
        pixels[..., 3] += classes * np.uint16(4500)
        tifffile.imwrite(
            folder / "images" / f"{number}.tif", pixels, photometric="minisblack",
            planarconfig="contig",
        )  # fmt: skip
        Image.fromarray(classes).save(folder / "maps" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(data, tiny, launch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny().dump(folder / "tiny.py")
    words = ["--train-images", data / "images", "--train-maps", data / "maps", "--val-share", 0.4]
    words += ["--bands", 5, "--show-bands", "4,2,1", "--work-dir", folder / "run"]
    launch(train, folder / "tiny.py", *words)
    return folder / "run"


def test_a_run_keeps_bands_and_others_use_them(run, data, launch, tmp_path):
    assert (run / "first_batch.jpg").is_file()
    page = (run / "report.html").read_text()
    assert "drawn are bands 4, 2, 1" in page
    assert "Worst images" in page
    own = ["--val-images", data / "images", "--val-maps", data / "maps"]
    launch(evaluate, run, *own, "--work-dir", tmp_path / "scores")
    assert (tmp_path / "scores" / "report.html").is_file()
    launch(demo, run, data / "images", "--output", tmp_path / "shown", "--device", "cpu")
    assert len([*(tmp_path / "shown" / "overlays").iterdir()]) == 6


def test_a_predictor_sees_what_the_run_saw(run, data):
    predictor = Predictor.from_run(run, device="cpu")
    file = data / "images" / "0.tif"
    pixels = tifffile.imread(file)
    assert predictor.model.backbone.net.in_channels == 5
    assert (predictor(file) == predictor(pixels)).all()
    assert predictor.bands.high[3] > 9000
    seen = predictor.model.data_preprocessor
    assert np.allclose(seen.mean.flatten(), 255 * np.array(predictor.bands.mean))
    with pytest.raises(ValueError, match=r"4.*5"):
        predictor(pixels[..., :4])


@pytest.mark.slow
def test_a_file_for_onnxruntime_has_the_bands(run, data, tmp_path):
    predictor = Predictor.from_run(run, device="cpu")
    export_segmentor(predictor, tmp_path / "bands.onnx")
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "bands.onnx")
    facts = json.loads(session.get_modelmeta().custom_metadata_map["preparation"])
    assert facts["bands"] == predictor.bands.as_json()
    file = data / "images" / "0.tif"
    pixels = predictor.bands.scale(tifffile.imread(file)).transpose(2, 0, 1)[None]
    (scores,) = session.run(["scores"], {"images": pixels})
    np.testing.assert_allclose(scores[0], predictor.sample(file).seg_logits.data, atol=1e-3)


@pytest.fixture
def again(run, data, tmp_path):
    """Make words of a training in a copy of the run, and its first image darker than it was."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    dark = tmp_path / "images"
    dark.mkdir()
    for file in (data / "images").iterdir():
        pixels = tifffile.imread(file) // 2
        tifffile.imwrite(dark / file.name, pixels, photometric="minisblack", planarconfig="contig")
    words = ["--train-images", dark, "--train-maps", data / "maps", "--val-share", 0.4]
    return [run.parent / "tiny.py", *words, "--work-dir", copy, "--resume"]


def test_a_run_that_continues_has_its_bands(run, again, launch, fails):
    before = Predictor.from_run(run, device="cpu").bands
    line = fails(train, *again, "--bands", 5, "--band-range", "0:99")
    assert "0:99" in line
    assert f"to {before.high[0]:g}" in line
    assert "RGB" in fails(train, *again)
    launch(train, *again, "--bands", 5, "train_cfg.max_iters=4")
    assert Predictor.from_run(again[-2], device="cpu").bands == before


def test_programs_of_rgb_refuse_bands(run, tmp_path, capsys):
    with pytest.raises(ValueError, match="5 bands"):
        open_model(str(run), device="cpu")
    with pytest.raises(SystemExit):
        convert([str(run), "--to", "timm", "--output", str(tmp_path / "timm")])
    error = capsys.readouterr().err
    assert "tiny.py" in error
    assert "bands" in error


def test_bands_are_of_own_data_and_their_number_is_checked(data, tiny, fails, tmp_path):
    tiny().dump(tmp_path / "tiny.py")
    assert "--bands 5" in fails(train, tmp_path / "tiny.py", "--bands", 5)
    words = ["--train-images", data / "images", "--train-maps", data / "maps", "--val-share", 0.4]
    line = fails(train, tmp_path / "tiny.py", *words, "--bands", 4)
    assert "0.tif has 5 bands" in line
