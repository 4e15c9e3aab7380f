"""Evaluate an EVA segmentor: `python segmentation/test.py --help`."""

from eva_runs.extras import explained
from eva_segmentation.evaluation.evaluate import main

if __name__ == "__main__":
    explained(main)()
