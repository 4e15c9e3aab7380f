"""Evaluate an EVA segmentor: `python segmentation/test.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_segmentation.commands:evaluate")
