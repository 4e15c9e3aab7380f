"""Detect objects in images and videos: `python detection/demo.py --help`."""

from eva_data.extras import explained
from eva_detection.inference.demo import main

if __name__ == "__main__":
    explained(main)()
