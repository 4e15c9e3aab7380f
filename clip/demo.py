"""Rank captions, and search images and videos: `python clip/demo.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_contrastive.commands:demo")
