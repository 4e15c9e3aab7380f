"""A small CLIP that learns to read digits from captions on two CPU cores, in about five minutes.

    python tools/make_demo_data.py --output output/datasets/digit_captions --formats captions

The vision tower begins with the bundled backbone, the text tower from scratch.
"""

from pathlib import Path

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_engine.config import OptimizerConfig, RunConfig

DIGITS = "output/datasets/digit_captions/captions"

config = ContrastiveConfig(
    model=ModelConfig(
        variant="eva_debug",
        image_size=48,
        init_checkpoint="eva_debug",
        text="debug",
        embed_dim=64,
    ),
    data=DataConfig(
        train=f"{DIGITS}/train/{{00000..00003}}.tar",
        val=f"{DIGITS}/val/00000.tar",
        zero_shot=f"{DIGITS}/zero_shot",
        templates=("a photo of the number {}.",),
    ),
    vision=TowerConfig(lr=1e-3, layer_decay=0.8),
    text=TowerConfig(lr=1e-3),
    optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=1, betas=(0.9, 0.98), clip_grad=1.0),
    run=RunConfig(
        output=Path("output/clip_debug"),
        epochs=8,
        batch_size=128,
        workers=1,
        best_metric="top1",
        tensorboard=False,
    ),
)
