"""EVA-L on ImageNet-1K at 336 px without ImageNet-21K, 50 epochs.

As its parent, 1024 images a step. This should give (official log): 88.65 top-1.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_l_patch14_in1k_196px.py"),
    ClassificationConfig,
    model={"image_size": 336},
    run={"output": "output/eva_l_in1k_336"},
)
