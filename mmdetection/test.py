"""Evaluate an EVA detector in mmdetection: `python mmdetection/test.py --help`."""

from eva_data.extras import explained
from eva_mmdetection.evaluation.evaluate import main

if __name__ == "__main__":
    explained(main)()
