"""Train a CLIP: `python clip/train.py RECIPE --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_contrastive.commands:train"))
