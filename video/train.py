"""Fine-tune a classifier of videos: `python video/train.py RECIPE --help`."""

from eva_runs.extras import explained
from eva_video.train_command import main

if __name__ == "__main__":
    explained(main)()
