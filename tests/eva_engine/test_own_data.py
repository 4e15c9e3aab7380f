"""Own data in the command of any project: what weights note, what is written, which classes fit."""

from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file

from eva_backbone.variants import CLIP_MEAN
from eva_engine.evaluation.own_data import fill_from_training, settings_of

NOTED = '{"data": {"crop_pct": 0.9, "std": [1, 2, 3]}, "class_names": ["a", "b"]}'


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
