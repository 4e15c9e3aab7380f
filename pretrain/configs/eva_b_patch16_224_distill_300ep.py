"""Pilot of Table 2b: ViT-B, feature distillation without masks, 300 epochs.

Reconstructed like its parent. This should give, after fine-tuning (paper): ImageNet-1K 85.1,
ADE20K 52.5 mIoU.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig

config = load_recipe(
    Path(__file__).with_name("eva_b_patch16_224_distill_800ep.py"),
    PretrainConfig,
    run={"output": "output/eva_b_distill_300ep", "epochs": 300},
)
