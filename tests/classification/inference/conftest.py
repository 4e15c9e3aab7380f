"""A classifier with random weights whose file notes its training."""

import pytest

from eva_engine.checkpoints.files import save_weights

CLASSES = ("four", "1", "a class with a name that is much too long for a small picture")


@pytest.fixture(scope="session")
def weights(classifier, tmp_path_factory):
    """A file of 3 classes at 32 px, with statistics and a crop of its own."""
    data = {"mean": [0.9, 0.8, 0.7], "std": [0.1, 0.2, 0.3], "crop_pct": 0.8}
    file = tmp_path_factory.mktemp("noting") / "model.safetensors"
    state = classifier[0].state_dict()
    state |= {"head.weight": 0.05 * state["head.weight"]}  # of which no class is certain
    save_weights(state, file, {"class_names": CLASSES, "data": data})
    return file
