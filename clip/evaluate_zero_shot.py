"""Evaluate a CLIP without training: `python clip/evaluate_zero_shot.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_contrastive.commands:evaluate")
