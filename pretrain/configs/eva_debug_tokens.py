"""Debug twin of the tokenised objective; needs the output of `tokenizer_debug.py`.

This should give: a validation accuracy above 0.35, of 64 codes.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig

config = load_recipe(
    Path(__file__).with_name("eva_debug_digit_scenes.py"),
    PretrainConfig,
    objective="masked_tokens",
    tokenizer="output/tokenizer_debug",
    run={"output": "output/pretrain_debug_tokens"},
)
