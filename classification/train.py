"""Fine-tune or probe a classifier: `python classification/train.py RECIPE --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_classification.commands:train")
