"""Fine-tune or probe a classifier: `python classification/train.py RECIPE --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_classification.commands:train"))
