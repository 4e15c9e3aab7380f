"""EVA on Kinetics-700 with 16 frames, after Kinetics-722, 2 epochs (paper, Table 16).

    torchrun --nnodes 8 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint $HEAD:29500 \
        video/train.py video/configs/eva_g_k700_16f.py

As its parent, 256 videos a step; 534,063 / 256 = 2086 steps an epoch, 4172 in all. The
official log has 4 h 11 min an epoch on 128 GPUs (1 clip x 2). This should give (paper):
82.9 top-1 with 4 clips x 3 crops.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_video.config import VideoConfig

lists = "datasets/kinetics722/k700_"
config = load_recipe(
    Path(__file__).with_name("eva_g_k400_16f.py"),
    VideoConfig,
    model={"class_mapping": "k700"},
    data={"train": f"{lists}train.txt", "val": f"{lists}val.txt", "classes": f"{lists}classes.txt"},
    run={"output": "output/eva_g_k700", "epochs": 2},
)
