"""Detect objects with mmdetection: `python mmdetection/demo.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_mmdetection.commands:demo")
