"""Detect objects in images and videos: `python detection/demo.py --help`."""

from eva_detection.inference.demo import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
