"""Train a CLIP: `python clip/train.py RECIPE --help`."""

from eva_contrastive.commands import train
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(train)()
