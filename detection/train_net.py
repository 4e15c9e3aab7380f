"""Train or evaluate an EVA detector: `python detection/train_net.py --help`."""

from eva_detection.command_line import train
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(train)()
