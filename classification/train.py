"""Fine-tune or probe a classifier: `python classification/train.py RECIPE --help`."""

from eva_classification.commands import train
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(train)()
