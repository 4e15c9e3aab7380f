"""Train an EVA segmentor: `python segmentation/train.py --help`."""

from eva_runs.extras import explained
from eva_segmentation.training.train import main

if __name__ == "__main__":
    explained(main)()
