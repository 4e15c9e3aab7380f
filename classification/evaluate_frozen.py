"""Score frozen features: `python classification/evaluate_frozen.py --help`."""

from eva_classification.commands import evaluate_frozen
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(evaluate_frozen)()
