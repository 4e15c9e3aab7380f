"""Fine-tuning EVA-CLIP's vision tower on ImageNet-1K at 336 px, 20 epochs.

As its parent, 512 images a step. This should give (official README): 89.4 top-1.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_clip_g_patch14_in1k_224px.py"),
    ClassificationConfig,
    model={"image_size": 336},
    run={"output": "output/eva_clip_in1k_336"},
)
