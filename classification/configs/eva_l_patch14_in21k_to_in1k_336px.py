"""EVA-L on ImageNet-1K at 336 px, after ImageNet-21K, 20 epochs.

As its parent, 512 images a step. This should give (official log): 89.2 top-1.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_l_patch14_in21k_to_in1k_196px.py"),
    ClassificationConfig,
    model={"image_size": 336},
    run={"output": "output/eva_l_in21k_in1k_336"},
)
