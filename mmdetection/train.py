"""Train an EVA detector in mmdetection: `python mmdetection/train.py --help`."""

from eva_data.extras import explained
from eva_mmdetection.training.train import main

if __name__ == "__main__":
    explained(main)()
