"""Debug twin of feature distillation: nothing is masked.

This should give: a validation cosine above 0.70; the best constant prediction has 0.68.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig

config = load_recipe(
    Path(__file__).with_name("eva_debug_digit_scenes.py"),
    PretrainConfig,
    objective="distillation",
    run={"output": "output/pretrain_debug_distill"},
)
