"""Learning rates and decays of two towers against the official rule, and what is frozen."""

from dataclasses import replace

import pytest
import torch

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_contrastive.model.eva_clip import build_eva_clip
from eva_contrastive.step import freeze, parameter_groups
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.parameter_groups import optimizer_groups

VISION = TowerConfig(lr=4e-4, weight_decay=0.05, layer_decay=0.85)
TEXT = TowerConfig(lr=4e-5, weight_decay=0.02, layer_decay=0.75)


def make_config(*, sizes=("eva_g_patch14", "clip_l"), **changes):
    given = {
        "model": ModelConfig(variant=sizes[0], text=sizes[1]),
        "data": DataConfig(train="pairs.csv"),
        "vision": VISION,
        "text": TEXT,
        "optimizer": OptimizerConfig(lr=5e-4),
        "run": RunConfig(output="unused"),
    }
    return ContrastiveConfig(**given | changes)


@pytest.fixture
def giant():
    with torch.device("meta"):
        return build_eva_clip(sigmoid=True)


@pytest.fixture
def small():
    return build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32, sigmoid=True)


EMBEDDINGS = {"cls_token", "pos_embed", "patch_embed", "positional_embedding", "token_embedding"}
SMALL = {"sizes": ("eva_debug", "debug")}


def official(name, ndim):
    """Learning rate and weight decay of a parameter of ViT-g and CLIP-L, read off its name."""
    tower, _, rest = name.partition(".")
    last = rest.rpartition(".")[2]
    if last.startswith("logit_"):
        return 5e-4, 0.0
    peak, decay, factor, depth = {
        "visual": (4e-4, 0.05, 0.85, 40), "text": (4e-5, 0.02, 0.75, 12)
    }[tower]  # fmt: skip
    parts = rest.split(".")
    if parts[0] in EMBEDDINGS:
        layer = 0
    elif "blocks" in parts or "resblocks" in parts:
        layer = 1 + int(next(part for part in parts if part.isdecimal()))
    else:
        layer = depth + 1
    free = ndim <= 1 or last in ("bias", "pos_embed", "cls_token", "positional_embedding")
    return peak * factor ** (depth + 1 - layer), 0.0 if free else decay


def test_the_official_rule(giant):
    config = make_config()
    groups = optimizer_groups(giant, parameter_groups(config, giant), lr=config.optimizer.lr)
    names = {id(parameter): name for name, parameter in giant.named_parameters()}
    found = {}
    for group in groups:
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert len(found) == len(names)
    expected = {name: official(name, p.ndim) for name, p in giant.named_parameters()}
    for name, (lr, decay) in expected.items():
        assert found[name] == (pytest.approx(lr, rel=1e-9), decay), name


@pytest.mark.parametrize(("vision", "text", "frozen", "trained"), [
    ({"locked": True}, {}, ["visual.head.bias", "visual.norm.weight"], ["text.ln_final.bias"]),
    ({}, {"locked": True}, ["text.text_projection", "text.ln_final.weight"], ["visual.cls_token"]),
    ({"frozen_blocks": 3}, {"frozen_blocks": 1},
     ["visual.pos_embed", "visual.patch_embed.proj.bias", "visual.blocks.2.norm1.weight",
      "text.positional_embedding", "text.token_embedding.weight",
      "text.transformer.resblocks.0.ln_1.weight"],
     ["visual.blocks.3.norm1.weight", "text.transformer.resblocks.1.ln_1.weight"]),
    ({}, {}, [], ["visual.cls_token", "text.token_embedding.weight"]),
])  # fmt: skip
def test_what_is_frozen(small, vision, text, frozen, trained):
    usual = {"weight_decay": 0.05, "layer_decay": 1.0}  # others have no effect on some of these
    towers = {"vision": replace(VISION, **usual, **vision), "text": replace(TEXT, **usual, **text)}
    config = make_config(**SMALL, **towers)
    freeze(config, small)
    trains = {name: parameter.requires_grad for name, parameter in small.named_parameters()}
    assert not any(trains[name] for name in frozen)
    assert all(trains[name] for name in trained)
    assert trains["text.logit_scale"]
    assert trains["text.logit_bias"]
    groups = parameter_groups(config, small)
    held = sum(len(group["params"]) for group in optimizer_groups(small, groups, lr=5e-4))
    assert held == sum(trains.values())
    for tower, settings in (("visual", vision), ("text", text)):
        of_tower = [train for name, train in trains.items() if name.startswith(f"{tower}.")]
        assert all(of_tower) is not bool(settings)
