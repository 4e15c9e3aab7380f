"""EVA-CLIP-g with adapters of rank 16 on one card of 24 GB.

1 process x 64 images x 8 = 512 a step. The rate of the adapters is not tuned.
"""

from pathlib import Path

from eva_backbone.lora import LoraSettings
from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_clip_g_patch14_in1k_336px.py"),
    ClassificationConfig,
    lora=LoraSettings(rank=16),
    optimizer={"lr": 2e-4},
    run={"output": "output/eva_g_lora", "batch_size": 64, "accumulate": 8, "precision": "bf16"},
)
