"""The steps of a CLIP, its features and its evaluation make every tensor where their input is."""

import copy

import pytest
import torch

KINDS = ("plain", "sigmoid", "patch dropout", "checkpoints", "half frozen", "two micro-batches")


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step(same_training, steps, kind):
    assert set(KINDS) == set(steps.CLIPS)
    same_training(steps.contrastive(kind))


@pytest.mark.parametrize("kind", ["plain", "sigmoid", "patch dropout"])
def test_on_the_meta_device(runs_on_meta, steps, kind):
    runs_on_meta(steps.contrastive(kind))


def test_features_and_logits(steps, second):
    from eva_contrastive.evaluation.zero_shot import ZeroShotClassifier

    model, tokens = steps.clip().eval(), steps.clip_tokens()
    images = torch.randn(3, 3, 64, 64)

    def compute(model, device):
        words = model.encode_text(tokens.to(device), normalize=True)
        logits = ZeroShotClassifier(model, words).to(device)(images.to(device))
        return words, logits

    wanted = compute(model, torch.device("cpu"))
    with second() as device, torch.no_grad():
        for one, other in zip(
            wanted, compute(copy.deepcopy(model).to(device), device), strict=True
        ):
            assert other.device == device
            torch.testing.assert_close(other.cpu(), one.detach(), atol=1e-3, rtol=1e-4)


def test_features_of_classes(steps, second):
    from eva_contrastive.evaluation.zero_shot import class_features

    model = steps.clip().eval()
    names = (["dog", "cat", "car"], ["a photo of a {}.", "a {}."])
    wanted = class_features(model, *names)
    with second() as device:
        found = class_features(copy.deepcopy(model).to(device), *names)
        assert found.device == device
        torch.testing.assert_close(found.cpu(), wanted, atol=1e-5, rtol=1e-5)
