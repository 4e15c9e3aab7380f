"""Evaluate a classifier of videos: `python video/evaluate.py --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_video.commands:evaluate")
