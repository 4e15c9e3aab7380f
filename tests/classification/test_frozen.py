"""Frozen features: neighbours and linear classifier beside scikit-learn's, and the command."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from eva_backbone import eva_debug
from eva_classification.features import FeatureExtractor
from eva_classification.frozen import (
    fit_best_linear,
    fit_linear,
    labelled_features,
    nearest_neighbours,
)
from eva_classification.frozen_command import main
from eva_data.labelled.folders import ClassFolders


@pytest.fixture(scope="module")
def digits():
    """Pixels of real digits: 400 to learn from, 200 to ask."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = torch.tensor(pixels[:600], dtype=torch.float32), torch.tensor(labels[:600])
    return pixels[:400], labels[:400], pixels[400:], labels[400:]


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


@pytest.mark.parametrize("k", [1, 7, 20])
def test_neighbours_vote_as_in_scikit_learn(digits, k):
    known, labels, queries, _ = digits
    votes = nearest_neighbours(known, labels, queries, k=k, classes=10)
    peer = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute",
        weights=lambda distances: np.exp((distances.min(1, keepdims=True) - distances) / 0.07),
    ).fit(known.numpy(), labels.numpy())  # fmt: skip
    shares = votes / votes.sum(1, keepdim=True)
    expected = torch.tensor(peer.predict_proba(queries.numpy()), dtype=torch.float32)
    torch.testing.assert_close(shares, expected, atol=1e-4, rtol=0)


def test_neighbours_are_counted(digits):
    known, labels, queries, _ = digits
    for k in (0, 401):
        with pytest.raises(ValueError, match=f"k is {k}, but there are 400 neighbours"):
            nearest_neighbours(known, labels, queries, k=k, classes=10)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_linear_classifier_is_scikit_learn_s(digits, l2):
    known, labels, queries, _ = digits
    ours = fit_linear(known, labels, classes=10, l2=l2)
    scaler = StandardScaler().fit(known.numpy())
    peer = LogisticRegression(C=1 / (l2 * len(known)), max_iter=2000, tol=1e-6)
    peer.fit(scaler.transform(known.numpy()), labels.numpy())
    expected = peer.predict_proba(scaler.transform(queries.numpy()))
    torch.testing.assert_close(
        ours(queries).softmax(1), torch.tensor(expected).float(), atol=2e-3, rtol=0
    )


def test_the_penalty_is_chosen_on_a_part_held_out(digits):
    known, labels, queries, truth = digits
    noisy = labels.clone()
    noisy[::3] = torch.randint(0, 10, noisy[::3].shape)  # a weak penalty learns the noise by heart
    chosen = fit_best_linear(known, noisy, classes=10, candidates=(1e-6, 0.3))
    assert chosen.l2 == 0.3
    weak = fit_linear(known, noisy, classes=10, l2=1e-6)
    rights = [(model(queries).argmax(1) == truth).float().mean() for model in (chosen, weak)]
    assert rights[0] > rights[1] + 0.05
    assert fit_best_linear(known, noisy, classes=10, candidates=(0.7,)).l2 == 0.7
    with pytest.raises(ValueError, match="there is no l2 to try"):
        fit_best_linear(known, noisy, classes=10, candidates=())
    with pytest.raises(ValueError, match="4 images are too few to choose l2"):
        fit_best_linear(known[:4], noisy[:4], classes=10)


def test_features_keep_the_order_of_the_data_set(folders):
    extractor = FeatureExtractor.from_weights("eva_debug", device="cpu", image_size=32)
    samples = ClassFolders(folders / "val", extractor.transform, upright=False)
    features, labels = labelled_features(extractor, samples, batch_size=5, workers=0)
    assert labels.tolist() == samples.labels.tolist()
    paths = [samples.sample_id(index) for index in range(len(samples))]
    torch.testing.assert_close(features, extractor(paths))
    fewer, some = labelled_features(extractor, samples, batch_size=5, workers=0, limit=9)
    assert fewer.shape == (9, 128)
    again, _ = labelled_features(extractor, samples, batch_size=4, workers=0, limit=9)
    torch.testing.assert_close(fewer, again)
    assert len(set(some.tolist())) > 1


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
        assert f"{name:16} " in shown
        assert score["images"] == 36
        assert score["top1"] >= 90
        assert score["loss"] < random["sets"][name]["loss"]
    assert trained["settings"]["l2"] in (1e-4, 1e-3, 1e-2, 1e-1)


def test_methods_can_be_left_out(folders, tmp_path):
    only = scores(folders, tmp_path, "eva_debug", "--neighbours", "3", "--l2",
                  "--train-images", "20")  # fmt: skip
    assert only["sets"].keys() == {"3 neighbours"}
    assert only["settings"]["train_images"] == 20


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--neighbours", "500"], "500 neighbours, but 90 images to learn from"),
        (["--weights", "nothing.pt"], "nothing.pt"),
        (["--val", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_mistakes_end_in_a_sentence(folders, tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        scores(folders, tmp_path, "eva_debug", *more)


@pytest.mark.parametrize(("more", "message"), [
    (["--neighbours", "--l2"], "nothing to score: both --neighbours and --l2 are empty"),
    (["--l2=-1"], "argument --l2: must be at least 0, got -1"),
    (["--l2=inf"], "argument --l2: must be a finite number, got inf"),
    (["--neighbours=0"], "argument --neighbours: must be at least 1, got 0"),
    (["--train-images=0"], "argument --train-images: must be at least 1, got 0"),
])  # fmt: skip
def test_options_without_sense(folders, tmp_path, more, message, capsys):
    with pytest.raises(SystemExit):
        scores(folders, tmp_path, "eva_debug", *more)
    assert message in capsys.readouterr().err
