"""Own videos on a CPU or a small card, without a download: 8 x 64 px, from bundled `eva_debug`.

Where left and right matter: `--augment.flip 0`.
"""

from pathlib import Path

from eva_engine.config import OptimizerConfig, RunConfig
from eva_video.config import DataConfig, ModelConfig, VideoConfig

config = VideoConfig(
    model=ModelConfig(
        variant="eva_debug",
        image_size=64,
        frames=8,
        init_checkpoint="eva_debug",
        full_position_lr=True,  # the order of the frames
    ),
    data=DataConfig(train="videos/train", val="videos/val"),
    optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=1, layer_decay=0.75, clip_grad=3.0),
    run=RunConfig(
        output=Path("output/videos"), epochs=20, batch_size=16, workers=1, best_metric="top1"
    ),
)
