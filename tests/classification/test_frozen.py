"""The check with frozen features: the command."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from eva_backbone import eva_debug
from eva_classification.commands import evaluate_frozen as main, train
from eva_classification.inference.predictor import Predictor


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Real digits 0, 1 and 7 as pictures in class folders, 30 to learn from and 12 others."""
    folder = tmp_path_factory.mktemp("folders")
    pixels, labels = load_digits(return_X_y=True)
    for digit in (0, 1, 7):
        for number, values in enumerate(pixels[labels == digit][:42]):
            path = folder / ("train" if number < 30 else "val") / str(digit) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray((255 - values.reshape(8, 8) * 15.9).astype(np.uint8))
            picture.resize((32, 32), Image.Resampling.BICUBIC).save(path)
    return folder


def scores(folders, tmp_path, weights, *more):
    main([
        "--weights", str(weights), "--train", str(folders / "train"), "--val",
        str(folders / "val"), "--image-size", "32", "--workers", "0", "--device", "cpu",
        "--output", str(tmp_path), *more,
    ])  # fmt: skip
    return json.loads((tmp_path / "results.json").read_text())


def test_the_command_tells_pre_trained_from_random_weights(folders, tmp_path, capsys):
    torch.save(eva_debug(img_size=32).state_dict(), tmp_path / "random.pt")
    trained = scores(folders, tmp_path, "eva_debug", "--pooling", "mean")
    shown = capsys.readouterr().out
    random = scores(folders, tmp_path, tmp_path / "random.pt", "--pooling", "mean")
    assert trained["sets"].keys() == {"10 neighbours", "20 neighbours", "linear"}
    for name, score in trained["sets"].items():
        assert f"\n{name} " in shown
        assert score["images"] == 36
        assert score["top1"] >= 90
        assert score["loss"] < random["sets"][name]["loss"]
    assert trained["settings"]["l2"] in (1e-4, 1e-3, 1e-2, 1e-1)
    page = (tmp_path / "report.html").read_text()
    for text in ("20 neighbours", "Confusion", "Worst: confident and wrong"):
        assert text in page


ATTENTIVE = ["--attentive", "--probe-epochs", "30", "--probe-lr", "1e-3"]


@pytest.mark.parametrize("head", [[], ATTENTIVE])
def test_a_head_is_saved_as_a_run_and_replaces_none(folders, tmp_path, refused, head):
    words = [*("--val-share", "0.3", "--save", "--neighbours"), *head]
    words += ["--weights", "eva_debug", "--train", str(folders / "train"), "--image-size", "32"]
    words += ["--workers", "0", "--device", "cpu", "--output", str(tmp_path)]
    main(words)
    predict = Predictor.from_weights(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    method = "attentive" if head else "linear"
    assert results["sets"].keys() == {"linear", method}
    assert results["sets"][method]["images"] == 29
    files = sorted((folders / "val").glob("*/*.png"))
    right = [predict(file)[0][0] == file.parent.name for file in files]
    assert sum(right) >= 0.9 * len(files)
    assert f"Confusion ({method})" in (tmp_path / "report.html").read_text()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with refused("--save .*--output"):
        main(words)
    begun = tmp_path / "begun"  # a run before its first checkpoint
    (begun / "checkpoints").mkdir(parents=True)
    (begun / "config.json").write_text("{}")
    with refused("--save .*--output"):
        main([*words, "--output", str(begun)])
    assert (begun / "config.json").read_text() == "{}"
    shutil.rmtree(begun)
    data = [f"--data.{part}={folders / part}" for part in ("train", "val")]
    with refused("has a run"):
        train(["eva_debug_digits", f"--run.output={tmp_path}", "--run.epochs=1", *data])
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}


def test_a_classifier_of_the_mean_is_not_saved(folders, tmp_path, refused):
    with refused("pooling=mean"):
        scores(folders, tmp_path, "eva_debug", "--pooling", "mean", "--save")


def test_without_a_method_nothing_is_computed(folders, tmp_path, refused):
    with refused("--neighbours"):
        scores(folders, tmp_path, "eva_debug", "--neighbours", "--l2")
    assert not (tmp_path / "results.json").exists()
