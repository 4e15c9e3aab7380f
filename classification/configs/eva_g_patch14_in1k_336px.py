"""EVA on ImageNet-1K at 336 px, after ImageNet-21K, 10 epochs (paper, Table 13).

    torchrun --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint $HEAD:29500 \
        classification/train.py classification/configs/eva_g_patch14_in1k_336px.py

32 processes x 16 images = 512 a step; 1,281,167 / 512 = 2502 steps an epoch. The patch embedding is
frozen as in the official code. This should give (paper): 89.6 top-1 of the moving average.
"""

from pathlib import Path

from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig
from eva_engine.commands.training import load_recipe
from eva_engine.config import OptimizerConfig

config = load_recipe(
    Path(__file__).with_name("eva_g_patch14_in21k_224px.py"),
    ClassificationConfig,
    model={"image_size": 336, "init_checkpoint": "eva_21k_224px_psz14.pt"},
    data=DataConfig(train="datasets/imagenet1k/train", val="datasets/imagenet1k/val"),
    augment=AugmentConfig(label_smoothing=0.3),
    optimizer=OptimizerConfig(lr=3e-5, warmup_epochs=2, layer_decay=0.95),
    run={
        "output": "output/eva_g_in1k_336",
        "epochs": 10,
        "batch_size": 16,
        "ema_decay": 0.9999,
        "best_metric": "top1",
    },
)
