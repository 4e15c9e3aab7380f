"""Detect objects in images and videos: `python detection/demo.py --help`."""

from eva_detection.command_line import demo
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(demo)()
