"""Fine-tune or probe a classifier: `python classification/train.py RECIPE --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_classification.commands:train")
