"""Detect objects with mmdetection: `python mmdetection/demo.py --help`."""

from eva_mmdetection.inference.demo import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
