"""Train an EVA segmentor: `python segmentation/train.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_segmentation.commands:train")
