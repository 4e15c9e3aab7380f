"""Train or evaluate an EVA detector: `python detection/train_net.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_detection.command_line:train")
