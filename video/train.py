"""Fine-tune a classifier of videos: `python video/train.py RECIPE --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_video.commands:train"))
