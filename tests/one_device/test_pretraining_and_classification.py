"""The steps of the projects with our own loop, and features of pictures."""

import copy

import pytest
import torch
from PIL import Image

CLASSIFIERS = ("plain", "mixed", "class token", "linear probe")
OBJECTIVES = (
    *("masked_features", "mask on the device", "mask on the CPU"),
    *("distillation", "tokens"),
)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_pretraining(same_training, steps, kind):
    same_training(steps.pretraining(kind))


@pytest.mark.parametrize("kind", ["masked_features", "distillation"])
def test_a_step_of_pretraining_never_waits_for_the_device(second, steps, kind):
    """The loader has decided the positions of the mask; the teacher, the loss and all gradients."""
    step = steps.pretraining(kind)
    with second(waits=False) as device:
        loss = step.run(step.model.to(device), device)
        loss.backward()
    assert loss.device == device
    assert step.model.student.patch_embed.proj.weight.grad is not None


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classification(same_training, steps, kind):
    same_training(steps.classification(kind))


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
