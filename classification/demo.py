"""Name what images show: `python classification/demo.py --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_classification.commands:demo"))
