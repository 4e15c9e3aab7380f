"""Intermediate fine-tuning of EVA on ImageNet-21K, 60 epochs (paper, Table 12).

    torchrun --nnodes 8 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint $HEAD:29500 \
        classification/train.py classification/configs/eva_g_patch14_in21k_224px.py

64 processes x 64 images = 4096 a step; 14,197,087 images / 4096 = 3466 steps an epoch, 207,960 in
all. `datasets/imagenet21k` has a folder for each of the 21,841 synsets; sorted, they are the
official order.

The patch embedding is frozen and the last learning rate 1e-6 as in the official code, of which the
paper is silent. This should give: `eva_21k_224px_psz14.pt`; no accuracy was published.
"""

from pathlib import Path

from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ClassificationConfig(
    model=ModelConfig(
        variant="eva_g_patch14",
        image_size=224,
        drop_path_rate=0.4,
        freeze_patch_embed=True,
        activation_checkpointing=True,
        init_checkpoint="eva_psz14.pt",
    ),
    data=DataConfig(train="datasets/imagenet21k"),
    augment=AugmentConfig(scale=(0.5, 1.0), cutmix=1.0, label_smoothing=0.1),
    optimizer=OptimizerConfig(
        lr=1e-4, min_lr=1e-6, warmup_epochs=15, betas=(0.9, 0.98), eps=1e-6, layer_decay=0.85
    ),
    run=RunConfig(
        output=Path("output/eva_g_in21k"), epochs=60, batch_size=64, precision="fp16", workers=10
    ),
)
