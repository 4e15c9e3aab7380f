"""Check a data set before training on it: `python tools/verify_data.py --help`."""

import sys

from eva_command.joint import verify as main

if __name__ == "__main__":
    sys.exit(main())
