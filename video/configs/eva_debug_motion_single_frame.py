"""The debug twin with one frame of each clip, in which no motion can be seen.

    python video/train.py video/configs/eva_debug_motion_single_frame.py

As its parent. This should give: below 40 % (`top1`; chance is 12.5 %, which was measured).
"""

from pathlib import Path

from eva_engine.commands.training import load_recipe
from eva_video.config import VideoConfig

config = load_recipe(
    Path(__file__).with_name("eva_debug_motion.py"),
    VideoConfig,
    model={"frames": 1},
    run={"output": "output/video_debug_single_frame"},
)
