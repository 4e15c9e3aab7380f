"""Pre-train a ViT: `python pretrain/train.py RECIPE --help`."""

from eva_pretrain.train_command import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
