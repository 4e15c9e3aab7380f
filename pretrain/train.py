"""Pre-train a ViT: `python pretrain/train.py RECIPE --help`."""

from eva_data.extras import explained
from eva_pretrain.train_command import main

if __name__ == "__main__":
    explained(main)()
