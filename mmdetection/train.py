"""Train an EVA detector in mmdetection: `python mmdetection/train.py --help`."""

from eva_mmdetection.commands import train as main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
