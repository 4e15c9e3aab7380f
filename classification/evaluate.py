"""Evaluate a classifier: `python classification/evaluate.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_classification.commands:evaluate")
