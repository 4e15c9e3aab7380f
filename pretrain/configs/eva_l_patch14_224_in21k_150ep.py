"""EVA-L: ViT-L on ImageNet-21K towards EVA-CLIP, 150 epochs.

64 processes x 64 images = 4096 a step; 14,197,087 images / 4096 = 3466 steps an epoch. Learning
rate, beta2, warm-up and epochs are those of the official log. The objective is EVA-g's; the
original EVA-L was trained MAE-style with a decoder (docs/deviations.md), so that the result is
another one: reconstructed, not published.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig, StudentConfig, TeacherConfig

config = load_recipe(
    Path(__file__).with_name("eva_g_patch14_224_merged30m_150ep.py"),
    PretrainConfig,
    student=StudentConfig(variant="eva_l_patch14", image_size=224),
    teacher=TeacherConfig(model="EVA01-g-14", weights="eva_clip_psz14.pt", precision="fp16"),
    data={"train": "datasets/imagenet21k"},
    optimizer={"lr": 2.4e-3, "betas": (0.9, 0.95)},
    run={"output": "output/eva_l_pretrain", "batch_size": 64},
)
