"""Train an EVA segmentor: `python segmentation/train.py --help`."""

from eva_runs.extras import explained
from eva_segmentation.commands import train as main

if __name__ == "__main__":
    explained(main)()
