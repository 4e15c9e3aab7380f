"""Name what images show: `python classification/demo.py --help`."""

from eva_classification.commands import demo
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(demo)()
