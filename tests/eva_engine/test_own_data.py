"""Own data in the command of any project: what weights note, what is written, which classes fit."""

import csv
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file

from eva_backbone.variants import CLIP_MEAN
from eva_engine.evaluation.own_data import evaluate_own_data, fill_from_training, settings_of

NOTED = '{"data": {"crop_pct": 0.9, "std": [1, 2, 3]}, "class_names": ["a", "b"]}'
LOGITS = [[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0], [2.0, 0.0, 1.0]]


@pytest.fixture
def options(tmp_path):
    """Function: options of a command, with the given ones."""
    file = tmp_path / "model.safetensors"
    save_file({"head.weight": torch.zeros(1)}, file, metadata={"config": NOTED})
    nothing = dict.fromkeys(("crop_pct", "mean", "std", "classes", "output"))
    common = {"weights": file, "data": "clips", "batch_size": 3, "workers": 0}
    return lambda **given: Namespace(**nothing | common | given)


def test_what_is_not_given_is_what_the_training_had(options):
    given = options(crop_pct=0.5)
    fill_from_training(given)
    assert (given.crop_pct, given.mean, given.std) == (0.5, CLIP_MEAN, [1, 2, 3])
    assert given.class_names == ["a", "b"]
    settings = settings_of(given, frames=16)
    assert (settings["crop_pct"], settings["frames"], settings["processes"]) == (0.5, 16, 1)
    assert "class_names" not in settings
    assert "output" not in settings
    given = options()
    fill_from_training(given, usual={"mean": (0.1, 0.2, 0.3), "std": None})
    assert (given.crop_pct, given.mean, given.std) == (None, (0.1, 0.2, 0.3), [1, 2, 3])
    given = options(classes="list.txt")
    fill_from_training(given)
    assert given.class_names == "list.txt"


def test_samples_of_any_kind_are_counted_and_written(
    options, prescribe, numbered, tmp_path, capsys
):
    model = prescribe(LOGITS)
    samples = numbered([0, 1, 2, 1], classes=3)
    given = options(output=tmp_path / "out")
    counted = evaluate_own_data(model, samples, given, num_classes=3, unit="videos")
    assert (counted.scores["data"].samples, counted.scores["data"].right1) == (4, 3)
    assert counted.mean_per_class == pytest.approx(100 * (1 + 1 / 2 + 1) / 3)
    with (tmp_path / "out" / "per_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["videos"] for row in rows] == ["1", "2", "1"]
    assert len(capsys.readouterr().out.splitlines()) == 2
    given.output = None
    again = evaluate_own_data(model, samples, given, num_classes=3)  # for the mean of the classes
    assert again.mean_per_class == counted.mean_per_class
    assert not capsys.readouterr().out
    with pytest.raises(ValueError, match=r"clips has 3 classes, .* has 4"):
        evaluate_own_data(model, samples, given, num_classes=4)


@pytest.mark.parametrize(("note", "named"), [
    ('{"data": {"mean": [NaN, 0, 0]}}', "mean"), ('{"data": {"std": [0, 1, 1]}}', "std"),
    ('{"data": {"std": "x"}}', "std=x"), ('{"data": {"crop_pct": "x"}}', "crop_pct=x"),
    ("[" * 200_000, r"model\.safetensors"),
])  # fmt: skip
def test_hostile_notes_are_refused(note, named, options):
    given = options()
    save_file({"head.weight": torch.zeros(1)}, given.weights, metadata={"config": note})
    with pytest.raises(ValueError, match=named):
        fill_from_training(given)
