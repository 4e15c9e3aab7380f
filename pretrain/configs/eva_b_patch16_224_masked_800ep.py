"""Pilot of Table 2: ViT-B, masked modelling of CLIP features, 800 epochs.

32 processes x 64 images = 2048 a step; ImageNet-1K, 1,281,167 images / 2048 = 625 steps an epoch.
The teacher sees 196 px, so that its 14 x 14 patches are the student's; 75 of 196 are masked.

The paper gives epochs and results only; learning rate, batch and warm-up are BEiT v2's (arXiv
2208.06366): reconstructed. This should give, after fine-tuning (paper): ImageNet-1K 85.5,
ADE20K 53.3 mIoU.
"""

from pathlib import Path

from eva_engine.config import OptimizerConfig, RunConfig
from eva_pretrain.config import DataConfig, MaskConfig, PretrainConfig, StudentConfig, TeacherConfig

config = PretrainConfig(
    student=StudentConfig(variant="eva_b_patch16", image_size=224, drop_path_rate=0.1),
    teacher=TeacherConfig(model="ViT-L-14", weights="openai", image_size=196),
    data=DataConfig(train="datasets/imagenet1k/train"),
    mask=MaskConfig(num_masked=75),
    optimizer=OptimizerConfig(
        lr=1.5e-3, min_lr=1e-5, warmup_epochs=10, betas=(0.9, 0.98), eps=1e-6, clip_grad=3.0
    ),
    run=RunConfig(
        output=Path("output/eva_b_masked"), epochs=800, batch_size=64, precision="fp16", workers=10
    ),
)
