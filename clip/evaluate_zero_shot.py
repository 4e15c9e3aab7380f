"""Evaluate a CLIP without training: `python clip/evaluate_zero_shot.py --help`."""

from eva_contrastive.evaluation.command import main

if __name__ == "__main__":
    main()
