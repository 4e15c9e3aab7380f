"""Detect objects with mmdetection: `python mmdetection/demo.py --help`."""

from eva_data.extras import explained
from eva_mmdetection.inference.demo import main

if __name__ == "__main__":
    explained(main)()
