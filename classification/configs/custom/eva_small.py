"""Own images on a CPU or a small card, without a download: 128 px, from the bundled `eva_debug`.

    eva classification train custom/eva_small --data.train photos --data.val-share 0.1

The digits that `eva_debug` knows are not your classes: hundreds of images a class, or a GPU with
official weights, are another thing.
"""

from pathlib import Path

from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ClassificationConfig(
    model=ModelConfig(variant="eva_debug", image_size=128, init_checkpoint="eva_debug"),
    data=DataConfig(train="photos/train", val="photos/val"),
    augment=AugmentConfig(scale=(0.35, 1.0), auto_augment="", color_jitter=0.3),
    optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=1, layer_decay=0.8, clip_grad=3.0),
    run=RunConfig(
        output=Path("output/own_images_small"),
        epochs=30,
        batch_size=32,
        workers=1,
        best_metric="top1",
    ),
)
