"""Rank captions, and search images and videos: `python clip/demo.py --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_contrastive.commands:demo"))
