"""The steps of a CLIP, its features and its evaluation make every tensor where their input is."""

import copy

import pytest
import torch

KINDS = ("plain", "sigmoid", "patch dropout", "checkpoints", "half frozen", "two micro-batches")


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step(same_training, steps, kind):
    same_training(steps.contrastive(kind))


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
