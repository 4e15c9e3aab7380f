"""Debug twin of the students: a fifth of the bundled backbone's size learns its features."""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig

config = load_recipe(
    Path(__file__).with_name("eva_debug_distill.py"),
    PretrainConfig,
    data={"val": ""},
    student={"variant": "eva_debug_small"},
    run={"output": "output/student"},
    teacher={"model": "", "image_size": 0, "views": 2, "cache": "output/student_features"},
)
