"""Debug twin of linear probing: LARS, frozen features, batch norm without parameters.

    python classification/train.py classification/configs/eva_debug_digits_linear.py

7019 digits / 128 = 54 steps an epoch, two minutes on two CPU cores. This should give: 69 % (of
random weights 11 %).
"""

from pathlib import Path

from eva_classification.config import AugmentConfig, ClassificationConfig
from eva_engine.commands.training import load_recipe
from eva_engine.config import OptimizerConfig

config = load_recipe(
    Path(__file__).with_name("eva_debug_digits.py"),
    ClassificationConfig,
    model={"pooling": "cls", "linear_probe": True, "drop_path_rate": 0.0},
    augment=AugmentConfig(
        scale=(0.8, 1.0),
        crop="once",
        flip=0.0,
        auto_augment="",
        label_smoothing=0.0,
    ),
    optimizer=OptimizerConfig(name="lars", lr=2.0, warmup_epochs=1, weight_decay=0.0),
    run={
        "output": "output/classification_debug_linear",
        "epochs": 10,
        "batch_size": 128,
        "zero_stage": 0,
        "ema_decay": 0.0,
    },
)
