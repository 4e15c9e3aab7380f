"""Make the lists of Kinetics-722: `python tools/make_kinetics722.py --help`."""

import sys

from eva_video.kinetics722 import main

if __name__ == "__main__":
    sys.exit(main())
