"""EVA on Kinetics-400 with 8 frames, without Kinetics-722, 40 epochs.

    torchrun --nnodes 16 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint $HEAD:29500 \
        video/train.py video/configs/eva_g_k400_8f_direct.py

128 processes x 2 clips = 256 a step; 234,584 videos / 256 = 916 steps an epoch, 36,640 in all. The
paper (section 2.3.2) gives 88.4 top-1 for EVA on Kinetics-400 without Kinetics-722, and neither
settings nor frames. These are Table 15's: the only ones for weights of images and a new head;
the learning rate of Table 16 is for a head that is trained. `--model.frames 16` costs twice as
much. No result was published for these settings.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_video.config import VideoConfig

lists = "datasets/kinetics722/k400_"
config = load_recipe(
    Path(__file__).with_name("eva_g_k722_8f.py"),
    VideoConfig,
    data={"train": f"{lists}train.txt", "val": f"{lists}val.txt", "classes": f"{lists}classes.txt"},
    run={"output": "output/eva_g_k400_direct"},
)
