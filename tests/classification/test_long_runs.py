"""Runs that are stopped and continued, and what other programs make of their weights."""

import pytest
import timm
import torch

from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_classification.models import build_classifier
from eva_engine.config import OptimizerConfig, RunConfig


@pytest.fixture
def config(digits, tmp_path):
    """All that is random, on 11 real digits: 2 steps an epoch."""
    return ClassificationConfig(
        model=ModelConfig(
            variant="eva_debug", image_size=32, drop_path_rate=0.3, init_checkpoint="eva_debug"
        ),
        data=DataConfig(train=str(digits), val=str(digits)),
        augment=AugmentConfig(mixup=0.8, cutmix=1.0, random_erase=0.3),
        optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=1, layer_decay=0.8),
        run=RunConfig(
            output=tmp_path / "whole", epochs=3, batch_size=4, workers=0, tensorboard=False,
            ema_decay=0.9, checkpoint_every=1, keep_checkpoints=9, log_every=1,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("name", ["eva_giant_patch14_224", "eva_large_patch14_196"])
def test_timm_loads_every_form(name, pooling, tmp_path, randomise):
    sizes = {"img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 2}
    variant = "eva_l_patch14" if "large" in name else "eva_g_patch14"
    ours = randomise(
        build_classifier(variant, num_classes=5, pooling=pooling, mlp_dim=64, **sizes)
    ).eval()
    torch.save(ours.state_dict(), tmp_path / "model.pt")
    theirs = timm.create_model(
        name, mlp_ratio=2, num_classes=5, checkpoint_path=str(tmp_path / "model.pt"),
        global_pool="avg" if pooling == "mean" else "token", **sizes,
    ).eval()  # fmt: skip
    images = torch.randn(2, 3, 28, 28)
    expected = theirs(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-4)
