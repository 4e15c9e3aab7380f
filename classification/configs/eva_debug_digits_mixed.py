"""Debug twin of the recipes with mixing, erasing, RandAugment and a moving average.

    python classification/train.py classification/configs/eva_debug_digits_mixed.py

As its parent; half of all batches are mixed by mixup, half by cutmix. This should give: 95 %
(`ema_top1`).
"""

from pathlib import Path

from eva_classification.config import AugmentConfig, ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_debug_digits.py"),
    ClassificationConfig,
    augment=AugmentConfig(
        scale=(0.8, 1.0),
        flip=0.0,
        auto_augment="rand-m5-mstd0.5-inc1",
        random_erase=0.1,
        mixup=0.2,
        cutmix=1.0,
    ),
    run={"output": "output/classification_debug_mixed"},
)
