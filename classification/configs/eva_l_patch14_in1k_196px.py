"""EVA-L on ImageNet-1K at 196 px without ImageNet-21K, 50 epochs.

16 processes x 64 images = 1024 a step; 1251 steps an epoch. Learning rate, decay and epochs are
those of the official log. Not published: drop path, mixup and cutmix, which were on (MAE's for
ViT-L here), smoothing (MAE's 0.1), betas and epsilon (AdamW's defaults). This should give (official
log): 88.0 top-1.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_g_patch14_in1k_336px.py"),
    ClassificationConfig,
    model={
        "variant": "eva_l_patch14",
        "image_size": 196,
        "drop_path_rate": 0.2,
        "freeze_patch_embed": False,
        "init_checkpoint": "eva_l_psz14.pt",
    },
    augment={"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1},
    optimizer={"lr": 2e-4, "warmup_epochs": 5, "layer_decay": 0.8},
    run={"output": "output/eva_l_in1k_196", "epochs": 50, "batch_size": 64},
)
