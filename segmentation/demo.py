"""Segment images: `python segmentation/demo.py --help`."""

from eva_runs.extras import explained
from eva_segmentation.inference.demo import main

if __name__ == "__main__":
    explained(main)()
