"""Intermediate fine-tuning of EVA-L on ImageNet-21K, 90 epochs.

64 processes x 64 images = 4096 a step; 3466 steps an epoch (the log has 3439). Learning rate,
decay and epochs are those of the official log. Not published: drop path, mixup and cutmix (MAE's
for ViT-L here), smoothing, betas and epsilon (EVA-g's of Table 12). This should give:
`eva_l_psz14_21k_ft.pt`; no accuracy was published.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_g_patch14_in21k_224px.py"),
    ClassificationConfig,
    model={
        "variant": "eva_l_patch14",
        "drop_path_rate": 0.2,
        "freeze_patch_embed": False,
        "init_checkpoint": "eva_l_psz14.pt",
    },
    augment={"scale": (0.08, 1.0), "mixup": 0.8},
    optimizer={"lr": 6e-4, "layer_decay": 0.75},
    run={"output": "output/eva_l_in21k", "epochs": 90},
)
