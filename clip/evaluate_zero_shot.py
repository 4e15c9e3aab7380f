"""Evaluate a CLIP without training: `python clip/evaluate_zero_shot.py --help`."""

from eva_contrastive.commands import evaluate

if __name__ == "__main__":
    evaluate()
