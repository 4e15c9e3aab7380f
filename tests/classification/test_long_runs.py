"""Runs that are stopped and continued, and what other programs make of their weights."""

import shutil
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file

from eva_classification import training
from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_classification.models import build_classifier
from eva_engine.checkpoints.run_checkpoint import RunCheckpoints
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


def probe_of(config):
    """The linear probe of the same data: LARS, without moving average."""
    return replace(
        config,
        model=replace(config.model, pooling="cls", linear_probe=True, drop_path_rate=0.0),
        augment=AugmentConfig(crop="once", auto_augment="", label_smoothing=0.0),
        optimizer=OptimizerConfig(name="lars", lr=1.0, warmup_epochs=1, weight_decay=0.0),
        run=replace(config.run, ema_decay=0.0, zero_stage=0),
    )


@pytest.mark.parametrize("kind", ["fine-tuning", "probe"])
def test_a_continued_run_is_the_uninterrupted_one(config, device, tmp_path, kind, metrics):
    config = probe_of(config) if kind == "probe" else config
    training.train(config, device)
    whole = RunCheckpoints(config.run.output, keep=9).complete()
    assert [folder.name for folder in whole] == [f"step_{n:08}" for n in range(1, 7)]
    shutil.copytree(config.run.output, tmp_path / "part")
    for folder in RunCheckpoints(tmp_path / "part", keep=9).complete()[3:]:
        shutil.rmtree(folder)  # as if it had been killed in step 4
    run = replace(config.run, output=tmp_path / "part", resume=True)
    training.train(replace(config, run=run), device)
    assert metrics(tmp_path / "part") == metrics(config.run.output)
    assert len({line["loss"] for line in metrics(tmp_path / "part") if "loss" in line}) == 6
    for name in ("model.safetensors", "model_ema.safetensors")[: 1 if kind == "probe" else 2]:
        expected = load_file(whole[-1] / name)
        continued = load_file(RunCheckpoints(tmp_path / "part", keep=9).complete()[-1] / name)
        assert expected.keys() == continued.keys()
        for key, value in expected.items():
            assert torch.equal(continued[key], value), key


def test_timm_loads_a_run_and_gives_the_same_logits(config, device):
    training.train(replace(config, run=replace(config.run, epochs=1)), device)
    folder = RunCheckpoints(config.run.output, keep=9).complete()[-1]
    for name in ("model.safetensors", "model_ema.safetensors"):
        theirs = timm.create_model(
            "eva_giant_patch14_336", img_size=32, patch_size=8, embed_dim=128, depth=5, num_heads=4,
            mlp_ratio=4, num_classes=3, checkpoint_path=str(folder / name),
        ).eval()  # fmt: skip
        ours = build_classifier("eva_debug", num_classes=3, img_size=32).eval()
        ours.load_state_dict(load_file(folder / name), strict=True)
        images = torch.randn(4, 3, 32, 32)
        expected = theirs(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=1e-4)


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
