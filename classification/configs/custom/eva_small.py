"""Own images on a CPU or a small card, without a download: 64 px, from the bundled `eva_debug`."""

from pathlib import Path

from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ClassificationConfig(
    model=ModelConfig(variant="eva_debug", image_size=64, init_checkpoint="eva_debug"),
    data=DataConfig(train="photos/train", val="photos/val"),
    augment=AugmentConfig(scale=(0.5, 1.0), auto_augment="", color_jitter=0.3),
    optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=1, layer_decay=0.8, clip_grad=3.0),
    run=RunConfig(
        output=Path("output/images"),
        epochs=40,
        batch_size=32,
        workers=1,
        ema_decay=0.99,
        best_metric="top1",
    ),
)
