"""Evaluate a classifier of videos: `python video/evaluate.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_video.commands:evaluate")
