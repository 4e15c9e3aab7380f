"""Train a CLIP: `python clip/train.py RECIPE --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_contrastive.commands:train")
