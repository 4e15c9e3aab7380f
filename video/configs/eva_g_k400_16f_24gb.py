"""EVA on one card of 24 GB, 16 frames: the upper 20 blocks and the head, in bf16.

    python video/train.py video/configs/eva_g_k400_16f_24gb.py

1 process x 4 clips x 64 = 256 a step, as its parent. For own classes: `--data.train FOLDER
--data.val FOLDER --data.classes '' --model.class-mapping '' --optimizer.lr 8e-6`: a new head needs
more than 1e-6 (Table 15's rate, not tuned).

GiB, computed, not measured on a GPU: weights in bf16, 1.017 G x 2 bytes, 1.9; of the 506 M
parameters that are trained, gradients in bf16 and their sum in float32, 6 bytes, 2.8, and float32
weights and moments, 12 bytes, 5.7; a copy in the step, 6 bytes, 2.8; reduction buffer 0.9; inputs
of 20 blocks, 4097 tokens x 1408 x 2 bytes x 4 clips each, 0.9; one block that is computed again,
and its gradients, 1.4; CUDA 1. Sum 17.4 of 22.4. No result was published for these settings.
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_video.config import VideoConfig

config = load_recipe(
    Path(__file__).with_name("eva_g_k400_16f.py"), VideoConfig,
    model={"frozen_blocks": 20},
    run={
        "output": "output/eva_g_k400_24gb", "batch_size": 4, "accumulate": 64, "precision": "bf16",
    },
)  # fmt: skip
