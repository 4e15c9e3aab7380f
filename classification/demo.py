"""Name what pictures show: `python classification/demo.py --help`."""

from eva_classification.inference.demo import main
from eva_runs.extras import explained

if __name__ == "__main__":
    explained(main)()
