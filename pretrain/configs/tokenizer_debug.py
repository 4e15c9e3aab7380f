"""Debug twin of the tokenizer: 64 codes for the features of the bundled backbone.

    python pretrain/train_tokenizer.py pretrain/configs/tokenizer_debug.py

2000 scenes / 16 = 125 steps, a quarter of a minute on two CPU cores. This should give: a
reconstruction with a cosine above 0.75.
"""

from pathlib import Path

from eva_engine.config import OptimizerConfig, RunConfig
from eva_pretrain.config import DataConfig, TeacherConfig, TokenizerConfig

config = TokenizerConfig(
    teacher=TeacherConfig(
        library="eva", model="eva_debug", weights="eva_debug", image_size=64, precision="fp32"
    ),
    data=DataConfig(train="output/datasets/digit_scenes/coco/train"),
    num_codes=64,
    code_dim=16,
    width=64,
    num_heads=2,
    optimizer=OptimizerConfig(lr=2e-3, min_lr=1e-5, warmup_epochs=0.2, weight_decay=1e-4),
    run=RunConfig(output=Path("output/tokenizer_debug"), epochs=1, batch_size=16, workers=0),
)
