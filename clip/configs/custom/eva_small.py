"""Own pairs on a CPU or a small card, without a download: 96 px, from the bundled `eva_debug`.

    eva clip train custom/eva_small --data.train pairs.csv --data.val-share 0.1

The text tower begins untrained: it knows the words of the pairs alone.
"""

from pathlib import Path

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_engine.config import OptimizerConfig, RunConfig

config = ContrastiveConfig(
    model=ModelConfig(
        variant="eva_debug", image_size=96, init_checkpoint="eva_debug", text="debug", embed_dim=64
    ),
    data=DataConfig(train="pairs.csv"),
    vision=TowerConfig(lr=1e-3, layer_decay=0.8),
    text=TowerConfig(lr=1e-3),
    optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=1, betas=(0.9, 0.98), clip_grad=1.0),
    run=RunConfig(output=Path("output/own_pairs_small"), epochs=10, batch_size=64, workers=1),
)
