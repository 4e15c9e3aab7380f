"""Evaluate an EVA detector in mmdetection: `python mmdetection/test.py --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_mmdetection.commands:evaluate")
