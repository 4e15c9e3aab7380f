"""Train an EVA detector in mmdetection: `python mmdetection/train.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_mmdetection.commands:train")
