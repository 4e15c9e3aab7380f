"""Name what images show: `python classification/demo.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_classification.commands:demo")
