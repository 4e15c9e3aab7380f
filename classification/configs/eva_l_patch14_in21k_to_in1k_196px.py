"""EVA-L on ImageNet-1K at 196 px, after ImageNet-21K, 20 epochs.

32 processes x 16 images = 512 a step; without mixup and cutmix, as in the official log. Drop path
and smoothing are not published: as the parent's. This should give (official log): 88.6 top-1.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_l_patch14_in1k_196px.py"),
    ClassificationConfig,
    model={"init_checkpoint": "eva_l_psz14_21k_ft.pt"},
    augment={"mixup": 0.0, "cutmix": 0.0},
    optimizer={"lr": 6e-5},
    run={"output": "output/eva_l_in21k_in1k_196", "epochs": 20, "batch_size": 16},
)
