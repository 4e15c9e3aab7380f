"""Settings that are refused, each with the value and the fix."""

from dataclasses import replace
from pathlib import Path

import pytest

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_engine.config import OptimizerConfig, RunConfig

MODEL = ModelConfig(variant="eva_debug", image_size=48, text="debug", embed_dim=16)
CONFIG = ContrastiveConfig(
    model=MODEL,
    data=DataConfig(train="shards/{000..009}.tar"),
    vision=TowerConfig(lr=1e-3),
    text=TowerConfig(lr=1e-3),
    optimizer=OptimizerConfig(lr=1e-3),
    run=RunConfig(output=Path("output/x")),
)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "model",
            {"text": "clip_b"},
            r"text must be one of clip_l, openclip_h, .*got 'clip_b'",
        ),
        ("model", {"embed_dim": 0}, "embed_dim must be at least 1, got 0"),
        ("model", {"patch_dropout": 1.0}, "patch_dropout must be below 1"),
        ("model", {"patch_dropout": -0.1}, r"patch_dropout must be in \[0, 1\], got -0.1"),
        ("data", {"crop_scale": (0.0, 1.0)}, "crop_scale must be two shares"),
        ("data", {"crop_scale": (1.0, 0.5)}, "crop_scale must be two shares"),
        ("data", {"templates": ()}, "templates must have at least one sentence"),
        ("data", {"templates": ("a {}.",)}, "templates='a {}.' has no effect without zero_shot"),
        ("data", {"val_share": 1.5}, "val_share must be a number between 0 and 1"),
        ("data", {"val_share": 0.1, "val": "v.csv"}, r"val_share=0.1 .* and val=v.csv is set too"),
        ("vision", {"lr": float("nan")}, "lr must be at least 0, got nan"),
        ("vision", {"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\], got 0.0"),
        ("vision", {"layer_decay": 1.1}, r"layer_decay must be in \(0, 1\], got 1.1"),
        ("text", {"frozen_blocks": -1}, "frozen_blocks must be at least 0"),
        ("text", {"frozen_blocks": 1, "locked": True}, "no effect with locked"),
    ],
)
def test_parts(part, change, message):
    with pytest.raises(ValueError, match=message):
        replace(getattr(CONFIG, part), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "triplet"}, "loss must be one of contrastive, sigmoid, got 'triplet'"),
        ({"max_logit_scale": 0.5}, "max_logit_scale must be at least 1"),
        ({"interpolation": 1.5}, r"interpolation must be in \[0, 1\]"),
        (
            {"optimizer": OptimizerConfig(lr=1e-3, layer_decay=0.9)},
            "set vision.layer_decay and text.layer_decay",
        ),
        (
            {"optimizer": OptimizerConfig(lr=1e-3, weight_decay=0.2)},
            "set vision.weight_decay and text.weight_decay",
        ),
        (
            {"vision": TowerConfig(lr=1e-3, frozen_blocks=6)},
            "vision.frozen_blocks must be at most 5, the blocks of that tower, got 6",
        ),
        ({"text": TowerConfig(lr=1e-3, frozen_blocks=3)}, "text.frozen_blocks must be at most 2"),
        (
            {"vision": TowerConfig(lr=1e-3, locked=True, layer_decay=0.8)},
            "vision.layer_decay=0.8 has no effect with vision.locked, .*: .* or set it to 1.0",
        ),
        (
            {"text": TowerConfig(lr=1e-3, locked=True, weight_decay=0.2)},
            "text.weight_decay=0.2 has no effect with text.locked, .*: .* or set it to 0.05",
        ),
        (
            {"text": TowerConfig(lr=1e-3, frozen_blocks=2, layer_decay=0.8)},
            "text.layer_decay=0.8 has no effect with text.frozen_blocks=2, which leaves one layer",
        ),
        (
            {"run": RunConfig(output=Path("x"), best_metric="top1")},
            "run.best_metric needs data.val, data.val_share or data.zero_shot; set it to nothing",
        ),
        ({"interpolation": 0.5}, "interpolation=0.5 needs a start that is a complete CLIP"),
        (
            {
                "model": replace(MODEL, patch_dropout=0.5),
                "vision": TowerConfig(lr=1e-3, locked=True),
            },
            "no use for a tower that is locked",
        ),
        (
            {
                "vision": TowerConfig(lr=1e-3, locked=True),
                "text": TowerConfig(lr=1e-3, locked=True),
            },
            "leave nothing to train",
        ),
    ],
)
def test_combinations(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
