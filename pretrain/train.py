"""Pre-train a ViT: `python pretrain/train.py RECIPE --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_pretrain.train_command:main"))
