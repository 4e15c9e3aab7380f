"""As its parent on one card of 12 GB: adapters in the upper 20 blocks.

1 process x 32 pairs x 16 = 512 a step.
"""

from pathlib import Path

from eva_contrastive.config import ContrastiveConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("own_pairs_lora_24gb.py"),
    ContrastiveConfig,
    lora={"first_block": 20},
    run={"output": "output/own_pairs_lora_12gb", "batch_size": 32, "accumulate": 16},
)
