"""EVA-CLIP-g with adapters of rank 16 on one card of 24 GB.

1 process x 64 images x 8 = 512 a step. GiB, planned, not measured: weights 1.9, adapters 0.3,
inputs of blocks 3.9, one block again 4, CUDA 1; sum 11.1. The rate of the adapters is not tuned.
"""

from dataclasses import replace
from pathlib import Path

from eva_backbone.lora import LoraSettings
from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

file = Path(__file__).with_name("eva_clip_g_patch14_in1k_336px.py")
parent = load_recipe(file, ClassificationConfig)
optimizer = replace(parent.optimizer, lr=2e-4)
run = replace(parent.run, output=Path("output/eva_g_lora"), batch_size=64, precision="bf16")
run = replace(run, accumulate=8)
config = replace(parent, lora=LoraSettings(rank=16), optimizer=optimizer, run=run)
