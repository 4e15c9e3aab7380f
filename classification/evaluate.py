"""Evaluate a classifier: `python classification/evaluate.py --help`."""

from eva_classification.evaluate_command import main

if __name__ == "__main__":
    main()
