"""Detect objects with mmdetection: `python mmdetection/demo.py --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_mmdetection.inference.demo:main"))
