"""As its parent with adapters in the vision tower, beside a locked text tower; a card of 24 GB.

1 process x 64 pairs x 8 = 512 a step. GiB, planned, not measured: weights in bf16 2.1, adapters
0.3, inputs of blocks 1.7, one block again 1.8, texts 0.1, CUDA 1; sum 7. The rate is not tuned.
"""

from pathlib import Path

from eva_backbone.lora import LoraSettings
from eva_contrastive.config import ContrastiveConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("own_pairs.py"), ContrastiveConfig,
    lora=LoraSettings(rank=16), text={"locked": True},
    vision={"lr": 5e-5, "layer_decay": 1.0, "frozen_blocks": 0},
    run={"output": "output/own_pairs_lora", "batch_size": 64, "accumulate": 8},
)  # fmt: skip
