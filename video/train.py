"""Fine-tune a classifier of videos: `python video/train.py RECIPE --help`."""

from eva_runs.extras import explained
from eva_video.commands import train

if __name__ == "__main__":
    explained(train)()
