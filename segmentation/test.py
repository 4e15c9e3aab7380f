"""Evaluate an EVA segmentor: `python segmentation/test.py --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_segmentation.commands:evaluate")
