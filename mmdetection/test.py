"""Evaluate an EVA detector in mmdetection: `python mmdetection/test.py --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_mmdetection.commands:evaluate"))
