"""Predictions for pictures in Python, beside the evaluation and the model itself."""

import numpy as np
import pytest
import torch
from PIL import Image

from eva_classification.inference.predictor import (
    IMAGENET,
    Predictor,
    imagenet_names,
)
from eva_classification.models import load_classifier
from eva_data.transforms import evaluation_transform


@pytest.fixture
def predictor(weights):
    return Predictor.from_weights(weights, device="cpu", batch_size=4)


def test_three_lines(predictor, weights, digits):
    file = digits / "1" / "0.png"
    found = predictor(file)
    transform = evaluation_transform(32, crop_pct=0.8, mean=[0.9, 0.8, 0.7], std=[0.1, 0.2, 0.3])
    with torch.no_grad():
        logits = load_classifier(weights)(transform(Image.open(file).convert("RGB"))[None])
    probabilities = logits[0].softmax(0).numpy()
    order = np.argsort(-probabilities)
    assert [one.name for one in found] == [predictor.class_names[k] for k in order]
    assert [one.probability for one in found] == pytest.approx(probabilities[order], abs=1e-6)
    assert predictor(file, top=2) == found[:2]


def same(found, expected):
    assert [one.name for one in found] == [one.name for one in expected]
    assert [one.probability for one in found] == pytest.approx(
        [one.probability for one in expected], abs=1e-6
    )


def test_whatever_a_user_gives(predictor, digits, tmp_path, caplog):
    file = digits / "1" / "0.png"
    found = predictor(file)
    picture = Image.open(file)
    array = np.asarray(picture.convert("RGB"))
    for one in (str(file), picture, array):
        same(predictor(one), found)
    many = predictor([file, array, picture, str(file), file])  # more than a batch
    assert len(many) == 5
    for one in many:
        same(one, found)
    assert predictor([]) == []
    (tmp_path / "a.png").symlink_to(file)
    (tmp_path / "b.png").write_bytes(b"nothing")
    pairs = dict(predictor(tmp_path))
    assert pairs.keys() == {tmp_path / "a.png"}
    assert "b.png" in caplog.text
    assert dict(predictor(f"{tmp_path}/a*.png")).keys() == {tmp_path / "a.png"}


def test_names_of_the_classes(classifier, weights, tmp_path, caplog):
    file = classifier[1]  # notes nothing
    predictor = Predictor.from_weights(file, device="cpu")
    assert predictor.class_names == ("class 0", "class 1", "class 2")
    assert str(file) in caplog.text
    assert Predictor.from_weights(file, classes=["a", "b", "c"], device="cpu").class_names == (
        "a", "b", "c"
    )  # fmt: skip
    (tmp_path / "two.txt").write_text("a\nb\n")
    for one in (file, weights):
        with pytest.raises(ValueError, match=r"2 .* 3"):
            Predictor.from_weights(one, classes=tmp_path / "two.txt", device="cpu")


def test_names_of_imagenet():
    for number in IMAGENET:
        names = imagenet_names(number)
        assert len(set(names)) == len(names) == number
    names = imagenet_names(1000)
    assert (names[0], names[283], names[134]) == ("tench", "Persian cat", "crane (n02012849)")
    assert "maillot, tank suit" in names  # beside the other maillot
