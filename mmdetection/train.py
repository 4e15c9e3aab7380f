"""Train an EVA detector in mmdetection: `python mmdetection/train.py --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_mmdetection.commands:train"))
