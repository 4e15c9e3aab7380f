"""Weights between the start and the end of a training: `python clip/interpolate.py --help`."""

import sys

from eva_contrastive.steps.interpolate_command import main

if __name__ == "__main__":
    sys.exit(main())
