"""Train a CLIP: `python clip/train.py RECIPE --help`."""

from eva_contrastive.train_command import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
