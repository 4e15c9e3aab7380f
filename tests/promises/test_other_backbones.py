"""`--backbone NAME`: another plain ViT in a recipe, trained, continued and scored."""

import pytest
import torch

from eva_backbone import load_vit

NAMES = {"detection": "dinov3", "mmdetection": "pe", "segmentation": "eva02"}


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("detection", "dinov3_debug"),
        pytest.param("mmdetection", "pe_debug", marks=pytest.mark.slow),
        ("segmentation", "eva02_debug"),
        ("classification", "dinov2_debug"),
        ("clip", "dinov3_debug"),
        pytest.param("pretrain", "dinov3_debug", marks=pytest.mark.slow),
        pytest.param("video", "dinov3_debug", marks=pytest.mark.slow),
    ],
)
def test_another_plain_vit_in_a_recipe(trainers, run, tmp_path, name, backbone):
    trainer = trainers(name)
    words = ["--backbone", backbone]
    if name not in NAMES:
        words += ["--run.epochs", 1]
    run(*trainer.command(tmp_path / "run", *words, steps=2, period=2), **trainer.variables)
    weights = trainer.weights(tmp_path / "run", steps=2 if name in NAMES else None)
    marks = {"dinov2": "register_tokens", "pe": "norm_pre", "eva02": "rope_embed.periods"}
    mark = marks.get(backbone.partition("_")[0], "rope_embed.periods")
    assert any(mark in key for key in weights)
    assert not any("rel_pos" in key for key in weights)
    assert (tmp_path / "run/report.html").is_file()
    if name == "classification":  # the file says what it is
        vit = load_vit(tmp_path / "run")
        assert vit(torch.zeros(1, 3, 128, 128)).isfinite().all()
    if name == "clip":
        data = trainer.train[trainer.train.index("--data.zero-shot") + 1]
        command = ["eva", "clip", "evaluate", "--weights", tmp_path / "run", "--data", data]
        run(*command, "--device", "cpu", "--output", tmp_path / "scores")
        assert (tmp_path / "scores/report.html").is_file()


@pytest.mark.parametrize("name", ["detection", "segmentation", "classification"])
def test_an_unknown_backbone_names_close_ones(trainers, run, fails, tmp_path, name):
    trainer = trainers(name)
    command = trainer.command(tmp_path / "run", "--backbone", "dinov3_l14")
    fails(run(*command, code=None, **trainer.variables), "dinov3_l14", "dinov3_l16")
    assert not (tmp_path / "run").exists()
