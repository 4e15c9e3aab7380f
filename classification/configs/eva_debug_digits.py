"""Debug twin: the bundled backbone learns to tell real handwritten digits apart.

    python tools/make_demo_data.py --output output/datasets/digit_folder --formats folder
    python classification/train.py classification/configs/eva_debug_digits.py

7019 digits / 32 = 219 steps an epoch, about three minutes on two CPU cores. This should give: at
least 95 % (`top1`, `ema_top1`) on 1023 digits of other handwriting and photographs.
"""

from pathlib import Path

from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ClassificationConfig(
    model=ModelConfig(
        variant="eva_debug", image_size=48, drop_path_rate=0.1, init_checkpoint="eva_debug"
    ),
    data=DataConfig(
        train="output/datasets/digit_folder/folder/train",
        val="output/datasets/digit_folder/folder/val",
    ),
    augment=AugmentConfig(scale=(0.8, 1.0), flip=0.0, auto_augment=""),
    optimizer=OptimizerConfig(lr=1.5e-3, warmup_epochs=1, layer_decay=0.8, clip_grad=3.0),
    run=RunConfig(
        output=Path("output/classification_debug"),
        epochs=6,
        batch_size=32,
        workers=0,
        ema_decay=0.99,
        best_metric="top1",
    ),
)
