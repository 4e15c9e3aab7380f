"""EVA on one card of 24 GB, 16 frames: the upper 20 blocks and the head, in bf16.

    python video/train.py video/configs/eva_g_k400_16f_24gb.py

1 process x 4 clips x 64 = 256 a step, as its parent. For own classes: `--data.train FOLDER
--data.val FOLDER --data.classes '' --model.class-mapping '' --optimizer.lr 8e-6`: a new head needs
more than 1e-6 (Table 15's rate, not tuned).

No result was published for these settings.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_video.config import VideoConfig

config = load_recipe(
    Path(__file__).with_name("eva_g_k400_16f.py"),
    VideoConfig,
    model={"frozen_blocks": 20},
    run={
        "output": "output/eva_g_k400_24gb",
        "batch_size": 4,
        "accumulate": 64,
        "precision": "bf16",
    },
)
