"""The steps of the projects with our own loop, and features of pictures."""

import copy

import pytest
import torch
from PIL import Image

CLASSIFIERS = ("plain", "mixed", "class token", "linear probe")
OBJECTIVES = ("masked_features", "distillation", "tokens")


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_pretraining(same_training, steps, kind):
    same_training(steps.pretraining(kind))


def test_the_tokenizer(same_training, steps):
    same_training(steps.tokenizer())


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classification(same_training, runs_on_meta, steps, kind):
    assert set(CLASSIFIERS) == set(steps.CLASSIFIERS)
    same_training(steps.classification(kind))
    runs_on_meta(steps.classification(kind))


def test_features(steps, second):
    extract = steps.feature_extractor()
    pictures = [Image.fromarray(steps.picture(*size)) for size in ((72, 96), (96, 64))]
    expected = extract(pictures), extract.patches(pictures)
    with second() as device:
        other = copy.deepcopy(extract).to(device)
        results = other(pictures), other.patches(pictures)
        for wanted, found in zip(expected, results, strict=True):
            assert found.device == device
            torch.testing.assert_close(found.cpu(), wanted, atol=1e-5, rtol=1e-5)
