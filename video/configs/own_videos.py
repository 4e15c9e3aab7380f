"""Own classes: a folder of videos for each, on one card of 24 GB.

    python video/train.py video/configs/own_videos.py \
        --data.train videos/train --data.val videos/val

`videos/train/CLASS/*.mp4`; the sorted names of the folders are the classes, and the weights carry
them: `video/demo.py` and `video/evaluate.py` need no list. A list of videos will do as well, see
video/README.md.

1 process x 4 clips x 8 = 32 a step. As `eva_g_k400_16f_24gb.py`, the lower 20 blocks are frozen;
8 frames, a new head over Kinetics-722's features. The learning rate is Table 15's for 256 clips,
not tuned. No result was published for these settings. Where left and right matter:
`--augment.flip 0`. Without a GPU: `custom/eva_small`.
"""

from pathlib import Path

from eva_engine.config import OptimizerConfig, RunConfig
from eva_video.config import DataConfig, ModelConfig, VideoConfig

config = VideoConfig(
    model=ModelConfig(
        variant="eva_g_patch14",
        frames=8,
        drop_path_rate=0.2,
        activation_checkpointing=True,
        frozen_blocks=20,
        init_checkpoint="eva_video_k722.pth",
    ),
    data=DataConfig(train="videos/train", val="videos/val"),
    optimizer=OptimizerConfig(
        lr=8e-6, warmup_epochs=1, betas=(0.9, 0.98), eps=1e-6, layer_decay=0.95
    ),
    run=RunConfig(
        output=Path("output/own_videos"),
        epochs=10,
        batch_size=4,
        accumulate=8,
        precision="bf16",
        best_metric="top1",
    ),
)
