"""EVA on Kinetics-600 with 16 frames, after Kinetics-722, 2 epochs (paper, Table 16).

    torchrun --nnodes 8 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint $HEAD:29500 \
        video/train.py video/configs/eva_g_k600_16f.py

As its parent, 256 videos a step; 412,688 / 256 = 1612 steps an epoch, 3224 in all. The
official log has 6 h 23 min an epoch. This should give (paper): 89.8 top-1 with 4 clips x 3 crops.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_video.config import VideoConfig

lists = "datasets/kinetics722/k600_"
config = load_recipe(
    Path(__file__).with_name("eva_g_k400_16f.py"),
    VideoConfig,
    model={"class_mapping": "k600"},
    data={"train": f"{lists}train.txt", "val": f"{lists}val.txt", "classes": f"{lists}classes.txt"},
    run={"output": "output/eva_g_k600", "epochs": 2},
)
