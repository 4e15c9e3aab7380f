"""Evaluate a CLIP without training: `python clip/evaluate_zero_shot.py --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_contrastive.commands:evaluate")
