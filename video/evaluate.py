"""Evaluate a classifier of videos: `python video/evaluate.py --help`."""

from eva_video.commands import evaluate

if __name__ == "__main__":
    evaluate()
