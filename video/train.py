"""Fine-tune a classifier of videos: `python video/train.py RECIPE --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_video.commands:train")
