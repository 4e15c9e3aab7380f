"""Detect objects in images and videos: `python detection/demo.py --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_detection.command_line:demo"))
