"""Linear probing of EVA-CLIP's vision tower on ImageNet-1K at 224 px, 90 epochs.

    torchrun --nnodes 5 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint $HEAD:29500 \
        classification/train.py classification/configs/eva_clip_g_patch14_in1k_224px_linear.py

40 processes x 400 images = 16,000 a step; 80 steps an epoch. Crops of 8 to 100 % in one draw,
flips, nothing else; the trunk in fp16 as officially (AMP), here the head in float32. This should
give (official README): 86.5 top-1.
"""

from pathlib import Path

from eva_classification.config import AugmentConfig, ClassificationConfig, DataConfig, ModelConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ClassificationConfig(
    model=ModelConfig(
        variant="eva_g_patch14",
        image_size=224,
        pooling="cls",
        linear_probe=True,
        trunk_precision="fp16",
        init_checkpoint="eva_clip_psz14_vision_enc.pt",
    ),
    data=DataConfig(train="datasets/imagenet1k/train", val="datasets/imagenet1k/val"),
    augment=AugmentConfig(crop="once", auto_augment="", label_smoothing=0.0),
    optimizer=OptimizerConfig(name="lars", lr=1.0, warmup_epochs=10, weight_decay=0.0),
    run=RunConfig(
        output=Path("output/eva_clip_linear_224"),
        epochs=90,
        batch_size=400,
        zero_stage=0,
        workers=10,
        best_metric="top1",
    ),
)
