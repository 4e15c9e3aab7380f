"""Evaluate an EVA segmentor: `python segmentation/test.py --help`."""

from eva_runs.extras import explained
from eva_segmentation.commands import evaluate as main

if __name__ == "__main__":
    explained(main)()
