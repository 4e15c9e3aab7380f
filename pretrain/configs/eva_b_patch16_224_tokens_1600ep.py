"""Pilot of Table 2a: ViT-B, masked modelling of tokenised CLIP features, 1600 epochs.

Reconstructed like its parent. This should give, after fine-tuning (paper): ImageNet-1K 85.5,
ADE20K 53.1 mIoU.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig

config = load_recipe(
    Path(__file__).with_name("eva_b_patch16_224_tokens_300ep.py"),
    PretrainConfig,
    run={"output": "output/eva_b_tokens_1600ep", "epochs": 1600},
)
