"""Train or evaluate an EVA detector: `python detection/train_net.py --help`."""

from eva_data.extras import explained
from eva_detection.training.command import main

if __name__ == "__main__":
    explained(main)()
