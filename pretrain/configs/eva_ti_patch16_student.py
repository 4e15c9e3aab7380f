"""ViT-Ti learns the features of a larger ViT, as ViT-B does. This should give: not published."""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig, StudentConfig

config = load_recipe(
    Path(__file__).with_name("eva_b_patch16_student.py"),
    PretrainConfig,
    student=StudentConfig(variant="eva_ti_patch16"),
)
