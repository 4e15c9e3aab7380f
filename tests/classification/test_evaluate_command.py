"""`classification/evaluate.py` with a real classifier on real digits, and its errors."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from eva_classification.commands import evaluate as main
from eva_engine import distributed

CLIP = np.array([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(distributed, "stop", lambda: None)  # other tests need the group
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.fixture
def evaluate(classifier):
    """Function: the command, without loading processes and on the CPU."""

    def start(*arguments, weights=classifier[1]):
        main(["--weights", str(weights), "--workers", "0", "--device", "cpu",
              *map(str, arguments)])  # fmt: skip

    return start


@pytest.fixture
def classes(tmp_path):
    """A file with the classes of the digits in another order."""
    file = tmp_path / "classes.txt"
    file.write_text("four\n0\n1\n")
    return file


def expected(model, folder, names):
    """Logits and labels without the data sets, transforms and counts of the package."""
    images, labels = [], []
    for path in sorted(folder.rglob("*.png")):
        image = Image.open(path).convert("RGB").resize((32, 44), Image.Resampling.BICUBIC)
        crop = (np.asarray(image)[6:38] / 255 - CLIP[0]) / CLIP[1]
        images.append(crop.transpose(2, 0, 1))
        labels.append(names.index(path.parent.name))
    with torch.no_grad():
        logits = model(torch.tensor(np.stack(images), dtype=torch.float32))
    return logits.double().numpy(), np.array(labels)


@pytest.mark.parametrize("with_list", [False, True])
def test_own_data(
    evaluate, classifier, digits, classes, cross_entropy, tmp_path, capsys, with_list
):
    names = ["four", "0", "1"] if with_list else ["0", "1", "four"]
    options = ("--classes", classes) if with_list else ()
    evaluate("--data", digits, "--output", tmp_path / "out", "--batch-size", 4, *options)
    logits, labels = expected(classifier[0], digits, names)
    right = int((logits.argmax(1) == labels).sum())
    loss = cross_entropy(logits, labels).mean()
    printed = capsys.readouterr().out
    row = ["data", f"{100 * right / 11:.3f}", "100.000", f"{loss:.3f}", "11"]
    assert row in [line.split() for line in printed.splitlines()]
    page = tmp_path / "out/report.html"
    command = [*map(str, ("--weights", classifier[1], *options)), f"{tmp_path}/out/demo"]
    for shown in (printed, page.read_text()):  # how the demo is started with these classes
        assert all(word in shown for word in command)
    assert str(page) in printed

    results = json.loads((tmp_path / "out" / "results.json").read_text())
    score = results["sets"]["data"]
    assert (score["images"], score["right1"], score["right5"]) == (11, right, 11)
    assert score["loss"] == pytest.approx(loss, rel=1e-4)
    settings = results["settings"]
    assert (settings["image_size"], settings["batch_size"], settings["processes"]) == (32, 4, 1)
    assert (settings["data"], settings["weights"]) == (str(digits), str(classifier[1]))
    assert ("classes" in settings) == with_list

    with (tmp_path / "out" / "per_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == names
    for label, row in enumerate(rows):
        of_class = logits.argmax(1)[labels == label]
        assert int(row["images"]) == len(of_class)
        assert float(row["top1"]) == pytest.approx(100 * (of_class == label).mean(), abs=1e-3)
        wrong = np.bincount(of_class[of_class != label], minlength=3)
        assert int(row["times"]) == wrong.max()
        assert row["most_often_taken_for"] in ("", *names)
        assert not wrong.any() or row["most_often_taken_for"] == names[wrong.argmax()]
    with Image.open(tmp_path / "out" / "confusion.png") as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture))) > 50


def test_size_and_crop(evaluate, digits, tmp_path, capsys):
    losses = set()
    for options in ((), ("--image-size", 48), ("--crop-pct", 0.8)):
        evaluate("--data", digits, "--output", tmp_path, *options)
        results = json.loads((tmp_path / "results.json").read_text())
        losses.add(results["sets"]["data"]["loss"])
        assert results["settings"]["image_size"] == (48 if "--image-size" in options else 32)
    assert len(losses) == 3


# Errors


def test_another_number_of_classes(evaluate, digits, write_picture, tmp_path, classifier, refused):
    for name in ("0", "1"):
        write_picture(tmp_path / "two" / name / "a.png")
    with refused(rf"two .*2.* {classifier[1]} .*3.* --classes"):
        evaluate("--data", tmp_path / "two")
    (tmp_path / "list.txt").write_text("0\n1\nfour\n")
    evaluate("--data", tmp_path / "two", "--classes", tmp_path / "list.txt")  # the way out
    (tmp_path / "list.txt").write_text("0\n1\n")
    with refused("four"):
        evaluate("--data", digits, "--classes", tmp_path / "list.txt")
