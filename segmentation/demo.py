"""Segment images: `python segmentation/demo.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_segmentation.inference.demo:main")
