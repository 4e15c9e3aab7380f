"""Evaluate a classifier: `python classification/evaluate.py --help`."""

from eva_classification.commands import evaluate
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(evaluate)()
