"""The partition of the layers and what is built on it."""

import pytest
from detectron2.modeling.backbone import vit as detectron2_vit

from eva_backbone.layer_decay import (
    freeze_layers,
    get_vit_lr_decay_rate,
    layer_index,
    param_groups_layer_decay,
)

# name -> group of a ViT of depth 40, as the official files of all projects name things
NAMES = {
    # bare: pre-training, classification, video
    "cls_token": 0,
    "mask_token": 0,
    "pos_embed": 0,
    "patch_embed.proj.weight": 0,
    "blocks.0.norm1.weight": 1,
    "blocks.0.attn.q_bias": 1,
    "blocks.39.mlp.fc2.bias": 40,
    "norm.weight": 41,
    "fc_norm.bias": 41,
    "head.weight": 41,
    # detection
    "backbone.net.pos_embed": 0,
    "backbone.net.patch_embed.proj.bias": 0,
    "backbone.net.blocks.3.attn.rel_pos_h": 4,
    "backbone.net.blocks.39.norm2.bias": 40,
    "backbone.simfp_2.4.norm.weight": 41,
    "proposal_generator.rpn_head.conv.conv0.weight": 41,
    "roi_heads.box_head.0.conv1.norm.weight": 41,
    "roi_heads.box_predictor.2.cls_score.bias": 41,
    "roi_heads.mask_head.deconv.weight": 41,
    # segmentation
    "backbone.cls_token": 0,
    "backbone.blocks.7.gamma_1": 8,
    "backbone.blocks.7.attn.relative_position_bias_table": 8,
    "backbone.level_embed": 41,
    "backbone.interactions.0.injector.attn.sampling_offsets.weight": 41,
    "decode_head.transformer_decoder.layers.0.attentions.0.attn.in_proj_weight": 41,
    # CLIP
    "visual.cls_token": 0,
    "visual.blocks.12.mlp.fc1.weight": 13,
    "visual.head.weight": 41,
    "text.positional_embedding": 41,
    "text.transformer.resblocks.0.attn.in_proj_weight": 41,
    "logit_scale": 41,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_its_group(name):
    assert layer_index(name, depth=40) == NAMES[name]
    assert layer_index(f"module.{name}", depth=40) == NAMES[name]  # as under DDP


# a text tower by itself, of depth 12, as open_clip names things
TEXT_NAMES = {
    "positional_embedding": 0,
    "token_embedding.weight": 0,
    "transformer.resblocks.0.attn.in_proj_weight": 1,
    "transformer.resblocks.11.mlp.c_proj.bias": 12,
    "ln_final.weight": 13,
    "text_projection": 13,
    "logit_scale": 13,
}


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_a_text_tower_by_itself_has_layers_of_its_own(name):
    assert layer_index(name, depth=12) == TEXT_NAMES[name]
    assert layer_index(f"text.{name}", depth=40) == 41


# Learning-rate factors


def test_drop_in_for_detectron2():
    detector = [name for name in NAMES if name.startswith(("backbone.", "proposal_", "roi_heads."))]
    assert len(detector) > 10
    for name in detector:
        if name == "backbone.cls_token":
            continue  # detectron2's ViT has none; it would give the full rate
        expected = detectron2_vit.get_vit_lr_decay_rate(name, lr_decay_rate=0.9, num_layers=40)
        assert get_vit_lr_decay_rate(name, lr_decay_rate=0.9, num_layers=40) == expected, name
    assert get_vit_lr_decay_rate("backbone.net.pos_embed") == 1.0


# Optimizer groups


@pytest.fixture
def model(make_classifier):
    return make_classifier(extra_tokens=("cls", "mask"), layer_scale=0.1)


def _groups(model, **options):
    defaults = {"depth": 2, "lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.5}
    return param_groups_layer_decay(model, **defaults | options)


def test_rates_and_weight_decay(model):
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["lr_scale"], group["weight_decay"], group["name"])
        for group in _groups(model)
        for p in group["params"]
    }
    assert found["pos_embed"] == (1.25e-4, 0.125, 0.0, "embeddings without decay")
    assert found["cls_token"][2] == 0.0
    assert found["mask_token"][2] == 0.05  # as in the official pre-training
    assert found["patch_embed.proj.weight"] == (1.25e-4, 0.125, 0.05, "embeddings")
    assert found["blocks.0.attn.qkv.weight"] == (2.5e-4, 0.25, 0.05, "blocks.0")
    assert found["blocks.1.norm1.weight"] == (5e-4, 0.5, 0.0, "blocks.1 without decay")
    assert found["blocks.1.gamma_1"][2] == found["blocks.1.attn.q_bias"][2] == 0.0
    assert found["head.weight"] == (1e-3, 1.0, 0.05, "behind the blocks")
    assert found["head.bias"] == (1e-3, 1.0, 0.0, "behind the blocks without decay")


# Freezing


@pytest.mark.parametrize("below", [0, 1, 2, 3, 4])
def test_freezing_stops_exactly_the_groups_below(model, below):
    frozen = freeze_layers(model, depth=2, below=below)
    for name, parameter in model.named_parameters():
        expected = layer_index(name, 2) < below
        assert parameter.requires_grad != expected, name
        assert (name in frozen) == expected, name
