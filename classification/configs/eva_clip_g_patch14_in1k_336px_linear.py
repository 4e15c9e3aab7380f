"""Linear probing of EVA-CLIP's vision tower on ImageNet-1K at 336 px, 90 epochs.

As its parent, with a peak learning rate of 0.6. This should give (official README): 86.5 top-1.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_clip_g_patch14_in1k_224px_linear.py"),
    ClassificationConfig,
    model={"image_size": 336},
    optimizer={"lr": 0.6},
    run={"output": "output/eva_clip_linear_336"},
)
