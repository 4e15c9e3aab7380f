"""Fine-tuning EVA-CLIP's vision tower on ImageNet-1K at 224 px, 20 epochs.

32 processes x 16 images = 512 a step, as in the log (the README says 1024). Mean pooling with a new
`fc_norm`. This should give (official README): 89.1 top-1.
"""

from pathlib import Path

from eva_classification.config import ClassificationConfig
from eva_engine.commands.training import load_recipe

config = load_recipe(
    Path(__file__).with_name("eva_g_patch14_in1k_336px.py"),
    ClassificationConfig,
    model={"image_size": 224, "init_checkpoint": "eva_clip_psz14_vision_enc.pt"},
    optimizer={"layer_decay": 0.9},
    run={"output": "output/eva_clip_in1k_224", "epochs": 20},
)
