"""Pilot of Table 2a: ViT-B, masked modelling of tokenised CLIP features, 300 epochs.

Needs the output of `tokenizer_clip_l14.py`. Reconstructed like its parent. This should give, after
fine-tuning (paper): ImageNet-1K 85.0, ADE20K 52.7 mIoU.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig

config = load_recipe(
    Path(__file__).with_name("eva_b_patch16_224_masked_800ep.py"),
    PretrainConfig,
    objective="masked_tokens",
    tokenizer="output/tokenizer_clip_l14",
    run={"output": "output/eva_b_tokens_300ep", "epochs": 300},
)
