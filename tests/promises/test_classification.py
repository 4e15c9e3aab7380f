"""Classifiers: own data, scores, predictions, features, and what others read of them."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from eva_backbone.checkpoints.run_folders import weights_of_run
from eva_engine.checkpoints.files import read_config

CPU = ("--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def mine(finished):
    """Output folder of a training."""
    return finished("classification")


@pytest.fixture(scope="module")
def val(engine_data):
    return engine_data / "folder/val"


@pytest.fixture(scope="module")
def images(val):
    return sorted(val.rglob("*.png"))


@pytest.fixture(scope="module")
def score(run, mine):
    """Function: results of `eva classification evaluate` on the training's validation data."""

    def evaluate(data, output, *more, weights=mine):
        ended = run("eva", "classification", "evaluate", weights, "--data", data, "--output",
                    output, "--json", *CPU, *more)  # fmt: skip
        results = json.loads((output / "results.json").read_text())
        assert json.loads(ended.out) == results
        return results["sets"]["data"]

    return evaluate


def test_an_evaluation_repeats_the_best_scores_and_shows_them(
    mine, val, images, score, read_page, tmp_path
):
    results = score(val, tmp_path / "out")
    best = json.loads((mine / "best/best.json").read_text())["model_ema.safetensors"]["results"]
    assert results["images"] == len(images)
    assert results["top1"] == best["top1"]
    assert results["loss"] == pytest.approx(best["loss"], abs=1e-6)
    with open(tmp_path / "out/per_class.csv") as file:
        assert len([*csv.DictReader(file)]) == 10
    assert (tmp_path / "out/confusion.png").stat().st_size > 1000
    page = read_page(tmp_path / "out/report.html")
    assert f"{results['top1']:.3g}" in page.text
    assert len(page.images) >= 8


def test_two_processes_score_each_image_once(run, score, mine, val, tmp_path):
    alone = score(val, tmp_path / "one")
    run("torchrun", "--nproc-per-node", 2, "-m", "eva_command", "classification", "evaluate", mine,
        "--data", val, "--output", tmp_path / "two", *CPU)  # fmt: skip
    both = json.loads((tmp_path / "two/results.json").read_text())["sets"]["data"]
    assert both == pytest.approx(alone, abs=1e-5)


def test_a_share_is_held_out_of_one_folder(
    run, training, metrics_of, engine_data, tmp_path, documented
):
    """In place of validation data; the weights carry the classes of the folder."""
    Predictor = documented("eva_classification", "Predictor")
    source = engine_data / "folder/train"
    output = tmp_path / "run"
    share = ("--data.train", source, "--data.val", "", "--data.val-share", 0.2)
    ended = run(*training("classification", output, *share, "--run.epochs", 1))
    counts = [int(number) for number in re.findall(r"^data .* (\d+) images", ended.text, re.M)]
    assert sum(counts) == len([*source.rglob("*.png")])
    assert 0.1 < min(counts) / sum(counts) < 0.35
    assert "val_top1" in metrics_of(output)[-1]
    ranking = Predictor.from_weights(str(output))(str(next((source / "4").glob("*.png"))))
    assert {name for name, _ in ranking} <= {str(digit) for digit in range(10)}


def test_a_damaged_image_is_an_error_or_left_out_and_named(score, val, fails, run, mine, tmp_path):
    shutil.copytree(val, tmp_path / "val")
    (tmp_path / "val/3/broken.png").write_bytes(b"no image")
    whole = score(val, tmp_path / "whole")
    words = ("eva", "classification", "evaluate", mine, "--data", tmp_path / "val", *CPU)
    fails(run(*words, code=None), "broken.png")
    assert score(tmp_path / "val", tmp_path / "out", "--max-bad-samples", 1) == whole
    assert len(json.loads((tmp_path / "out/results.json").read_text())["left_out"]) == 1
    words = (tmp_path / "val/3", "--output", tmp_path / "found", "--json", "--device", "cpu")
    ended = run("eva", "classification", "demo", mine, *words, code=None)
    assert ended.code == 1
    assert "broken.png" in ended.out
    assert len(json.loads(ended.out)) > 1


def _write_mnist(files, root):
    """The published files of MNIST: images and labels of both splits."""
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    images = np.stack([np.asarray(Image.open(f).convert("L").resize((28, 28))) for f in files])
    labels = np.array([int(file.parent.name) for file in files], np.uint8)
    for split in ("train", "t10k"):
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = [0x0800 + values.ndim, *values.shape]
            content = np.array(head, ">i4").tobytes() + values.tobytes()
            (raw / f"{split}-{kind}-ubyte").write_bytes(content)


def test_a_data_set_of_torchvision_by_its_name(run, images, tmp_path):
    _write_mnist(images, tmp_path)
    train, val = (f"torchvision:MNIST:{tmp_path}:{split}" for split in ("train", "test"))
    run("eva", "classification", "evaluate-frozen", "eva_debug", "--train", train, "--val", val,
        "--neighbours", 1, "--image-size", 32, "--output", tmp_path / "out", *CPU)  # fmt: skip
    scores = json.loads((tmp_path / "out/results.json").read_text())["sets"]["1 neighbours"]
    assert scores["images"] == len(images)
    assert scores["top1"] > 95  # the same images, but for twins


def test_features_in_files_are_those_in_python(run, mine, val, images, tmp_path, documented):
    read_features = documented("eva_runs", "read_features")
    FeatureExtractor = documented("eva_classification", "FeatureExtractor")
    words = ("eva", "batch", "features", val, "--weights", mine, "--output", tmp_path / "out",
             "--processes", 0, "--store", "fp32", "--device", "cpu",
             "--precision", "fp32")  # fmt: skip
    run(*words)
    _, features = read_features(tmp_path / "out")
    extract = FeatureExtractor.from_weights(str(mine))
    expected = extract([str(path) for path in images])
    torch.testing.assert_close(torch.as_tensor(features), expected, atol=1e-5, rtol=1e-4)
    assert extract.patches(str(images[0])).shape == (1, 128, 4, 4)


def test_official_weights_keep_what_the_run_noted(call_eva, mine, tmp_path):
    """Classes, mean and std, crop: without them the file would be scored otherwise."""
    file = tmp_path / "official.safetensors"
    call_eva("eva", "convert", mine, "--to", "official", "--output", file, code=0)
    noted = read_config(file)
    assert noted
    assert noted == read_config(weights_of_run(mine, ema=None))
