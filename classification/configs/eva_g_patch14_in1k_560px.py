"""EVA on ImageNet-1K at 560 px, after ImageNet-21K, 15 epochs (paper, Table 13).

As its parent, 512 images a step. This should give (paper): 89.7 top-1 of the moving average; the
released weights are those of epoch 10, the best on validation (here: `best/`).
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_g_patch14_in1k_336px.py"),
    ClassificationConfig,
    model={"image_size": 560},
    run={"output": "output/eva_g_in1k_560", "epochs": 15},
)
