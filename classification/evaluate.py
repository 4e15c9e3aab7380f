"""Evaluate a classifier: `python classification/evaluate.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    raise SystemExit(entry("eva_classification.commands:evaluate"))
