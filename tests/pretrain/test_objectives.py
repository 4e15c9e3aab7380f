"""The three objectives of Table 2 against their closed forms."""

import pytest
import torch
from torch import nn

from eva_pretrain.masked_image_modeling import MaskedFeatures, MaskedImageModeling, masked_positions
from eva_pretrain.other_objectives import FeatureDistillation, MaskedTokens
from eva_pretrain.tokens.tokenizer import Codebook, FeatureTokenizer

SIZES = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 48,
}
TEACHER_DIM, CODES = 6, 20


def _model(randomise, target_dim, **options):
    return randomise(MaskedImageModeling(target_dim=target_dim, **SIZES | options))


def _batch():
    images, features = torch.randn(3, 3, 32, 32), torch.randn(3, 16, TEACHER_DIM)
    mask = torch.rand(3, 4, 4) < 0.4
    return images, mask, features, masked_positions(mask.flatten(1))


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    codebook = Codebook(num_codes=CODES, code_dim=4)
    tokenizer = FeatureTokenizer(feature_dim=TEACHER_DIM, codebook=codebook, width=16, num_heads=2)
    tokenizer(torch.randn(8, 16, TEACHER_DIM))
    return tokenizer


def test_masked_features(randomise):
    model, (images, mask, features, positions) = _model(randomise, TEACHER_DIM), _batch()
    loss, metrics = MaskedFeatures()(model, images, mask, features, positions)
    predictions = model.lm_head(model.forward_features(images, mask.flatten(1))[:, 1:])
    cosine = nn.CosineSimilarity(dim=-1)(predictions, features)
    torch.testing.assert_close(loss, -cosine[mask.flatten(1)].mean())
    assert metrics.keys() == {"cosine"}
    assert metrics["cosine"] == -loss
    loss.backward()
    assert model.mask_token.grad.any()


def test_feature_distillation(randomise):
    model = _model(randomise, TEACHER_DIM, extra_tokens=("cls",))
    images, _, features, _ = _batch()
    loss, metrics = FeatureDistillation()(model, images, None, features, None)
    predictions = model.lm_head(model.forward_features(images)[:, 1:])
    torch.testing.assert_close(loss, -nn.CosineSimilarity(dim=-1)(predictions, features).mean())
    assert metrics["cosine"] == -loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_masked_tokens(randomise, tokenizer):
    objective, model = MaskedTokens(tokenizer), _model(randomise, CODES)
    images, mask, features, positions = _batch()
    loss, metrics = objective(model, images, mask, features, positions)
    logits = model.lm_head(model.forward_features(images, mask.flatten(1))[:, 1:])
    codes = tokenizer.encode(features)
    truth = logits.log_softmax(-1).gather(2, codes[..., None])[..., 0]
    torch.testing.assert_close(loss, -truth[mask.flatten(1)].mean())
    right = (logits.argmax(-1) == codes)[mask.flatten(1)].float().mean()
    assert metrics["accuracy"] == right
    used = len(codes[mask.flatten(1)].unique()) / CODES
    assert metrics["code_usage"].item() == pytest.approx(used)
    loss.backward()
    assert model.lm_head.weight.grad.any()
    assert all(parameter.grad is None for parameter in tokenizer.parameters())


def test_accuracy_of_a_model_that_knows(tokenizer):
    _, mask, features, positions = _batch()
    codes = tokenizer.encode(features)[mask.flatten(1)]
    wrong = (codes + 1) % CODES
    wrong[: len(codes) // 2] = codes[: len(codes) // 2]
    answers = nn.functional.one_hot(wrong, CODES) * 50.0
    loss, metrics = MaskedTokens(tokenizer)(lambda *_: answers, None, mask, features, positions)
    share = (len(codes) // 2) / len(codes)
    assert metrics["accuracy"].item() == pytest.approx(share)
    assert loss.item() == pytest.approx(50.0 * (1 - share), rel=1e-4)


def test_metrics_are_detached_and_the_training_mode_moves_no_code(randomise, tokenizer):
    images, mask, features, positions = _batch()
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    cases = [
        (MaskedFeatures(), TEACHER_DIM),
        (FeatureDistillation(), TEACHER_DIM),
        (MaskedTokens(tokenizer).train(), CODES),
    ]
    for objective, outputs in cases:
        loss, metrics = objective(_model(randomise, outputs), images, mask, features, positions)
        assert loss.requires_grad
        assert loss.shape == ()
        assert not any(value.requires_grad or value.ndim for value in metrics.values())
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())


def test_a_teacher_with_another_grid_or_width(randomise, tokenizer):
    model, (images, mask, features, positions) = _model(randomise, TEACHER_DIM), _batch()
    for objective in (MaskedFeatures(), MaskedTokens(tokenizer)):
        with pytest.raises(ValueError, match=r"= \(3, 15\), the mask has \(3, 16\); choose image"):
            objective(model, images, mask, features[:, :15], positions)
    with pytest.raises(ValueError, match="does target_dim match the teacher"):
        MaskedFeatures()(model, images, mask, features[..., :5], positions)
    with pytest.raises(ValueError, match="does target_dim match the teacher"):
        FeatureDistillation()(model, images, mask, features[:, :15], positions)
    with pytest.raises(
        ValueError, match=r"predicts 6 values, .* build the model with target_dim=20"
    ):
        MaskedTokens(tokenizer)(model, images, mask, features, positions)
