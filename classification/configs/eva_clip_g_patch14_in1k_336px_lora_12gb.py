"""As its parent on one card of 12 GB: adapters in the upper 20 blocks.

1 process x 32 images x 16 = 512 a step.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_clip_g_patch14_in1k_336px_lora_24gb.py"),
    ClassificationConfig,
    lora={"first_block": 20},
    run={"output": "output/eva_g_lora_12gb", "batch_size": 32, "accumulate": 16},
)
