"""CIFAR as torchvision unpacks it, ImageNet by name, and names of own classes."""

import pickle

import numpy as np
import pytest
from torchvision import datasets

from eva_contrastive.evaluation.benchmarks import open_cifar
from eva_contrastive.evaluation.prompts import named_classes

FINE = ["apple", "aquarium_fish", "baby"]  # as torchvision's `meta` writes them


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    """Two test pictures of CIFAR-100 in the form that torchvision unpacks."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.uint32).reshape(2, 3072).astype(np.uint8)
    (folder / "test").write_bytes(pickle.dumps({"data": pixels, "fine_labels": [2, 1]}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": FINE}))
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *_: True)
    return tmp_path


@pytest.mark.parametrize("form", ["{}", "torchvision:CIFAR100:{}:test"])
def test_cifar_of_torchvision(cifar100, form):
    one = open_cifar(form.format(cifar100), 100, lambda picture: picture.size)
    assert one.name == "CIFAR-100"
    assert len(one.templates) == 18
    assert one.names == one.samples.classes == named_classes("cifar100")
    assert [one.samples[index] for index in range(2)] == [((32, 32), 2), ((32, 32), 1)]
    assert one.names[1] == "aquarium fish"


def test_another_set_in_the_place_of_cifar(cifar100, make_set):
    with pytest.raises(ValueError, match=r"is not CIFAR-10: apple"):
        open_cifar(f"torchvision:CIFAR100:{cifar100}:test", 10, None)
