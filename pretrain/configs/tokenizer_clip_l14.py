"""Tokenizer of CLIP ViT-L/14's features for the tokenised pilots of Table 2a.

    torchrun --nproc_per_node 8 pretrain/train_tokenizer.py pretrain/configs/tokenizer_clip_l14.py

8 processes x 64 images = 512 a step; 1,281,167 images / 512 = 2502 steps an epoch. Codes, their
width, learning rate and epochs follow BEiT v2 (arXiv 2208.06366, 8192 codes of 32 channels, 100
epochs); the paper used its tokenizer and gives no settings: reconstructed.
"""

from pathlib import Path

from eva_engine.config import OptimizerConfig, RunConfig
from eva_pretrain.config import DataConfig, TeacherConfig, TokenizerConfig

config = TokenizerConfig(
    teacher=TeacherConfig(model="ViT-L-14", weights="openai", image_size=196),
    data=DataConfig(train="datasets/imagenet1k/train"),
    optimizer=OptimizerConfig(
        lr=2e-4, min_lr=1e-5, warmup_epochs=5, betas=(0.9, 0.99), weight_decay=1e-4
    ),
    run=RunConfig(output=Path("output/tokenizer_clip_l14"), epochs=100, batch_size=64, workers=10),
)
