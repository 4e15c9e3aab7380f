"""Evaluate a classifier of videos: `python video/evaluate.py --help`."""

from eva_video.evaluation.command import main

if __name__ == "__main__":
    main()
