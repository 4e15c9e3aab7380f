"""The three objectives of Table 2 against their closed forms."""

import pytest
import torch
from torch import nn

from eva_pretrain.masked_image_modeling import (
    MaskedFeatures,
    MaskedImageModeling,
    PretrainStep,
    collate,
)
from eva_pretrain.tokenizer import Codebook, FeatureTokenizer, MaskedTokens

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2,
         "mlp_dim": 48}  # fmt: skip
TEACHER_DIM, CODES = 6, 20


def _model(randomise, target_dim, **options):
    return randomise(MaskedImageModeling(target_dim=target_dim, **SIZES | options))


def _batch(*, masked=True):
    images, features = torch.randn(3, 3, 32, 32), torch.randn(3, 16, TEACHER_DIM)
    masks = torch.rand(3, 4, 4) < 0.4
    samples = [{"images": image} for image in images]
    if masked:
        samples = [one | {"mask": mask} for one, mask in zip(samples, masks, strict=True)]
    return collate(samples), masks.flatten(1), features


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    codebook = Codebook(num_codes=CODES, code_dim=4)
    tokenizer = FeatureTokenizer(feature_dim=TEACHER_DIM, codebook=codebook, width=16, num_heads=2)
    tokenizer(torch.randn(8, 16, TEACHER_DIM))
    return tokenizer


def test_masked_features(randomise):
    model, (batch, mask, features) = _model(randomise, TEACHER_DIM), _batch()
    step = PretrainStep(lambda images: features, MaskedFeatures())
    loss, metrics = step(model, batch)
    predictions = model.lm_head(model.forward_features(batch["images"], mask)[:, 1:])
    cosine = nn.CosineSimilarity(dim=-1)(predictions, features)[mask]
    torch.testing.assert_close(loss, -cosine.mean())
    torch.testing.assert_close(step.objective.agreement(*step.compare(model, batch)), cosine)
    assert metrics == {"cosine": -loss}
    assert not metrics["cosine"].requires_grad
    loss.backward()
    assert model.mask_token.grad.any()


def test_feature_distillation(randomise):
    model = _model(randomise, TEACHER_DIM, extra_tokens=("cls",))
    batch, _, features = _batch(masked=False)
    loss, metrics = PretrainStep(lambda images: features, MaskedFeatures())(model, batch)
    predictions = model.lm_head(model.forward_features(batch["images"])[:, 1:])
    torch.testing.assert_close(loss, -nn.CosineSimilarity(dim=-1)(predictions, features).mean())
    assert metrics == {"cosine": -loss}
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_masked_tokens(randomise, tokenizer):
    """No code moves, in training mode either."""
    objective, model = MaskedTokens(tokenizer).train(), _model(randomise, CODES)
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    batch, mask, features = _batch()
    step = PretrainStep(lambda images: features, objective)
    loss, metrics = step(model, batch)
    logits = model.lm_head(model.forward_features(batch["images"], mask)[:, 1:])
    codes = tokenizer.encode(features)
    truth = logits.log_softmax(-1).gather(2, codes[..., None])[..., 0][mask]
    torch.testing.assert_close(loss, -truth.mean())
    torch.testing.assert_close(objective.agreement(*step.compare(model, batch)), truth.exp())
    assert metrics["accuracy"] == (logits.argmax(-1) == codes)[mask].float().mean()
    assert metrics["code_usage"].item() == pytest.approx(len(codes[mask].unique()) / CODES)
    assert not any(value.requires_grad for value in metrics.values())
    loss.backward()
    assert model.lm_head.weight.grad.any()
    assert all(parameter.grad is None for parameter in tokenizer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())
