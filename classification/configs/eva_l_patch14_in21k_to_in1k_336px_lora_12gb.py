"""As its parent on one card of 12 GB: adapters in the upper 12 blocks.

1 process x 64 images x 8 = 512 a step.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_l_patch14_in21k_to_in1k_336px_lora_24gb.py"),
    ClassificationConfig,
    lora={"first_block": 12},
    run={"output": "output/eva_l_lora_12gb", "batch_size": 64, "accumulate": 8},
)
