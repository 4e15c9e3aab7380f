"""As its parent with adapters in the vision tower, beside a locked text tower; a card of 24 GB.

1 process x 64 pairs x 8 = 512 a step. The rate is not tuned.
"""

from pathlib import Path

from eva_backbone.lora import LoraSettings
from eva_contrastive.config import ContrastiveConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("own_pairs.py"),
    ContrastiveConfig,
    lora=LoraSettings(rank=16),
    text={"locked": True},
    vision={"lr": 5e-5, "layer_decay": 1.0, "frozen_blocks": 0},
    run={"output": "output/own_pairs_lora", "batch_size": 64, "accumulate": 8},
)
