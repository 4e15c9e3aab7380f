"""Fine-tune or probe a classifier: `python classification/train.py RECIPE --help`."""

from eva_classification.train_command import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
