"""Debug twin of the tokenised objective; needs the output of `tokenizer_debug.py`.

This should give: a validation accuracy above 0.35, of 64 codes.
"""

from dataclasses import replace
from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_pretrain.config import PretrainConfig

parent = load_recipe(Path(__file__).with_name("eva_debug_digit_scenes.py"), PretrainConfig)
config = replace(
    parent,
    objective="masked_tokens",
    tokenizer="output/tokenizer_debug",
    run=replace(parent.run, output=Path("output/pretrain_debug_tokens")),
)
