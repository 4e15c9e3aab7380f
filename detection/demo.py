"""Detect objects in images and videos: `python detection/demo.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_detection.command_line:demo")
