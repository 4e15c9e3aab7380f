"""Weights between the start and the end of a training: `python clip/interpolate.py --help`."""

import sys

from eva_contrastive.commands import interpolate

if __name__ == "__main__":
    sys.exit(interpolate())
