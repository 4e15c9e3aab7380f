"""Evaluate an EVA detector in mmdetection: `python mmdetection/test.py --help`."""

from eva_mmdetection.commands import evaluate as main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
