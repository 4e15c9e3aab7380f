"""Segment images: `python segmentation/demo.py --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_segmentation.inference.demo:main"))
