"""Learning rates and decays of two towers against the official rule."""

import pytest
import torch

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_contrastive.model.eva_clip import build_eva_clip
from eva_contrastive.step import parameter_groups
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


EMBEDDINGS = {"cls_token", "pos_embed", "patch_embed", "positional_embedding", "token_embedding"}


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
