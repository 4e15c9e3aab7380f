"""Settings that are refused, each with the value."""

from dataclasses import replace
from pathlib import Path

import pytest

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_engine.config import OptimizerConfig, RunConfig

MODEL = ModelConfig(variant="eva_debug", image_size=48, text="debug", embed_dim=16)
LOCKED = TowerConfig(lr=1e-3, locked=True)
CONFIG = ContrastiveConfig(
    model=MODEL,
    data=DataConfig(train="shards/{000..009}.tar"),
    vision=TowerConfig(lr=1e-3),
    text=TowerConfig(lr=1e-3),
    optimizer=OptimizerConfig(lr=1e-3),
    run=RunConfig(output=Path("output/x")),
)


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("model", {"text": "clip_b"}, "clip_b"),
        ("model", {"patch_dropout": 1.0}, "patch_dropout"),
        ("data", {"crop_scale": (1.0, 0.5)}, "1.0, 0.5"),
        ("data", {"val_share": 0.1, "val": "v.csv"}, "v.csv"),
        ("vision", {"lr": float("nan")}, "nan"),
        ("vision", {"layer_decay": 1.1}, "1.1"),
    ],
)
def test_parts(part, change, named):
    with pytest.raises(ValueError, match=named):
        replace(getattr(CONFIG, part), **change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loss": "triplet"}, "triplet"),
        ({"interpolation": 1.5}, "interpolation"),
        ({"optimizer": OptimizerConfig(lr=1e-3, layer_decay=0.9)}, "vision.layer_decay"),
        ({"vision": TowerConfig(lr=1e-3, frozen_blocks=6)}, "vision.frozen_blocks=6.* 5 blocks"),
        ({"run": RunConfig(output=Path("x"), best_metric="top1")}, "data.zero_shot"),
        ({"model": replace(MODEL, patch_dropout=0.5), "vision": LOCKED}, "patch_dropout"),
        ({"vision": LOCKED, "text": LOCKED}, "vision.locked and text.locked"),
    ],
)
def test_combinations(change, named):
    with pytest.raises(ValueError, match=named):
        replace(CONFIG, **change)
