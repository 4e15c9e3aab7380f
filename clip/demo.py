"""Rank captions, and search images and videos: `python clip/demo.py --help`."""

from eva_contrastive.commands import demo
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(demo)()
