"""Every official classification file, and those of EVA-CLIP, by name: published forms, small sizes.

The sizes of the variants are replaced by tiny ones of the same proportions, so that each file can
be written; names, containers, heads, pooling and the form of the bias are the published ones.
"""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from eva_backbone import variants
from eva_backbone.checkpoints.registry import find_official_file, list_official_files
from eva_classification import training
from eva_classification.config import ClassificationConfig, ModelConfig
from eva_classification.features import FeatureExtractor
from eva_classification.models import (
    LinearProbe,
    build_classifier,
    build_linear_probe,
    load_classifier,
)
from eva_engine.commands.training import load_recipe

RECIPES = Path(__file__).parents[2] / "classification" / "configs"

CLASSES = {
    "eva_21k_224px_psz14.pt": 21841,
    "eva_l_psz14_21k_ft.pt": 21841,
    "eva_21k_1k_336px_psz14_ema_89p6.pt": 1000,
    "eva_21k_1k_560px_psz14_ema_89p7.pt": 1000,
    "eva_l_psz14_196px_1k_ft_88p0.pt": 1000,
    "eva_l_psz14_196px_21k_to_1k_ft_88p6.pt": 1000,
    "eva_l_psz14_336px_1k_ft_88p65.pt": 1000,
    "eva_l_psz14_336px_21k_to_1k_ft_89p2.pt": 1000,
    "eva_clip_vis_enc_sz224_ftcls_89p1.pt": 1000,
    "eva_clip_vis_enc_sz336_ftcls_89p4.pt": 1000,
    "eva_clip_vis_enc_sz224_lincls_86p5.pth": 1000,
    "eva_clip_vis_enc_sz336_lincls_86p5.pth": 1000,
}
CONTAINERS = ("model", "module", None)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """$EVA_WEIGHTS, and variants so small that their files fit into it."""
    for name in ("eva_g_patch14", "eva_l_patch14"):
        small = replace(
            variants.VARIANTS[name], embed_dim=44 if "_g_" in name else 32, depth=2, num_heads=2,
            mlp_dim=48,
        )  # fmt: skip
        monkeypatch.setitem(variants.VARIANTS, name, small)
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    return tmp_path


def test_the_list_is_whole():
    assert set(CLASSES) == {entry.name for entry in list_official_files("classification")}


@pytest.mark.parametrize("name", CLASSES)
def test_by_name_at_any_resolution(name, weights, randomise, official):
    entry = find_official_file(name)
    build = build_linear_probe if "lincls" in name else build_classifier
    model = build(entry.variant, num_classes=CLASSES[name], img_size=entry.resolution)
    state = randomise(model).eval().state_dict()
    assert ("blocks.0.attn.qkv.bias" in state) == ("eva_l" in name)
    container = CONTAINERS[len(name) % 3]
    torch.save({container: state} if container else state, weights / name)
    official(weights / name)
    loaded = load_classifier(entry.stem)
    assert (loaded.num_classes, loaded.img_size) == (CLASSES[name], entry.resolution)
    side = 28 if entry.resolution % 28 == 0 else 14
    images = torch.randn(1, 3, side * 3, side * 2)
    torch.testing.assert_close(loaded(images), model(images), atol=0, rtol=0)
    larger = load_classifier(name, image_size=entry.resolution + 56)
    assert larger.pos_embed.shape[1] == 1 + (entry.resolution // 14 + 4) ** 2
    features = FeatureExtractor.from_weights(name, device="cpu")
    torch.testing.assert_close(features(images), model.pool(images).detach())


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("eva_psz14.pt", {"mask_token": (1, 1, 44), "lm_head.weight": (768, 44)}),
        ("eva_21k_224px_psz14.pt", {"head.weight": (21841, 44), "head.bias": (21841,)}),
        ("eva_clip_psz14_vision_enc.pt", {"head.weight": (1024, 44), "head.bias": (1024,)}),
        ("eva_l_psz14.pt", {"mask_token": (1, 1, 512), "decoder_embed.weight": (512, 32)}),
    ],
)
def test_fine_tuning_starts_from_it(name, extra, weights, randomise, official):
    """As the recipes do: another head, a new `fc_norm`, no final norm."""
    variant = find_official_file(name).variant
    source = randomise(variants.build_vit(variant, img_size=224))
    state = source.state_dict() | {key: torch.zeros(shape) for key, shape in extra.items()}
    if name == "eva_21k_224px_psz14.pt":
        state |= {
            "fc_norm.weight": state.pop("norm.weight"),
            "fc_norm.bias": state.pop("norm.bias"),
        }
    torch.save({"module": state}, weights / name)
    official(weights / name)
    config = ModelConfig(variant=variant, image_size=336, init_checkpoint=name)
    model = training.build_model(config, num_classes=1000)
    assert model.pos_embed.shape[1] == 1 + 24**2
    for key, value in source.blocks.state_dict().items():
        assert torch.equal(model.blocks.state_dict()[key], value)
    assert model.head.weight.shape == (1000, model.embed_dim)
    assert model.head.weight.abs().max() < 1e-3  # initialised, not loaded
    started = torch.equal(model.fc_norm.weight, torch.ones(model.embed_dim))
    assert started == ("21k" not in name)


@pytest.fixture
def clip_file(weights, clip_form, official, randomise):
    """A vision tower, and a file of EVA-CLIP that holds it; official ones by their names."""
    source = randomise(variants.build_vit("eva_g_patch14", img_size=224)).half().float().eval()
    state = clip_form(source.state_dict())
    file = weights / {"official": "eva_clip_psz14.pt", "run": "model.safetensors",
                      "vision tower": "eva_clip_psz14_vision_enc.pt",
                      "open_clip": "open_clip_pytorch_model.bin"}[clip_form.name]  # fmt: skip
    if clip_form.name == "run":
        save_file(state, file)
        return source, str(file)
    torch.save({"model": {name: value.half() for name, value in state.items()}}, file)
    if clip_form.name == "open_clip":
        return source, str(file)
    official(file)
    return source, file.name


def recipe_of(stem, name):
    path = RECIPES / f"eva_clip_g_patch14_in1k_{stem}.py"
    return replace(load_recipe(path, ClassificationConfig).model, init_checkpoint=name)


def test_probes_start_from_eva_clip(clip_file, caplog):
    """The frozen features are those of the tower; projection and text tower are left out."""
    caplog.set_level(logging.INFO)
    source, name = clip_file
    config = replace(recipe_of("224px_linear", name), trunk_precision="fp32")
    model = training.build_model(config, num_classes=1000).eval()
    assert isinstance(model, LinearProbe)
    assert model.head[1].weight.shape == (1000, 44)
    images = torch.randn(2, 3, config.image_size, config.image_size)
    expected = source.forward_features(images)[:, 0].detach()
    torch.testing.assert_close(model.pool(images), expected)
    if name != "eva_clip_psz14_vision_enc.pt":
        assert "visual." in caplog.text
        assert "text." in caplog.text


def test_fine_tuning_starts_from_eva_clip_at_another_size(clip_file):
    source, name = clip_file
    model = training.build_model(recipe_of("336px", name), num_classes=1000)
    assert model.pos_embed.shape[1] == 1 + 24**2
    assert torch.equal(model.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert torch.equal(model.fc_norm.weight, torch.ones(44))
    assert model.norm is None or not list(model.norm.parameters())
    assert model.head.weight.abs().max() < 1e-3  # initialised, not loaded


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_its_projection_is_no_classifier_of_as_many_classes(clip_file, pooling):
    """Also that of a bare tower, whose names are those of a classifier of the class token."""
    _, name = clip_file
    config = replace(recipe_of("224px", name), pooling=pooling)
    model = training.build_model(config, num_classes=1024)
    assert model.head.weight.abs().max() < 1e-3  # initialised, not loaded


def test_a_head_of_the_class_token_is_none_of_the_mean(weights, randomise):
    """Such as the tower under another name; one of the class token goes on with its head."""
    source = randomise(build_classifier("eva_g_patch14", num_classes=7, pooling="cls"))
    save_file(source.state_dict(), weights / "own.safetensors")
    config = ModelConfig(
        variant="eva_g_patch14", image_size=224, init_checkpoint=str(weights / "own.safetensors")
    )
    model = training.build_model(config, num_classes=7)
    assert model.head.weight.abs().max() < 1e-3
    model = training.build_model(replace(config, pooling="cls"), num_classes=7)
    assert torch.equal(model.head.weight, source.head.weight)
