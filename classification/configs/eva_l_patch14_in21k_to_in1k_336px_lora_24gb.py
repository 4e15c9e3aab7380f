"""EVA-L with adapters of rank 16 on one card of 24 GB.

1 process x 128 images x 4 = 512 a step. GiB, planned, not measured: weights 0.6, adapters 0.2,
inputs of blocks 3.4, one block again 5, CUDA 1; sum 10.2. The rate of the adapters is not tuned.
"""

from dataclasses import replace
from pathlib import Path

from eva_backbone.lora import LoraSettings
from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

file = Path(__file__).with_name("eva_l_patch14_in21k_to_in1k_336px.py")
parent = load_recipe(file, ClassificationConfig)
optimizer = replace(parent.optimizer, lr=2e-4)
run = replace(parent.run, output=Path("output/eva_l_lora"), batch_size=128, precision="bf16")
model = replace(parent.model, activation_checkpointing=True)
config = replace(
    parent,
    model=model, lora=LoraSettings(rank=16), optimizer=optimizer, run=replace(run, accumulate=4),
)  # fmt: skip
