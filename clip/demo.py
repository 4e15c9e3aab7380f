"""Rank captions, and search pictures and videos: `python clip/demo.py --help`."""

from eva_contrastive.inference.demo import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
