"""Check a data set before training on it: `python tools/verify_data.py --help`."""

import sys

from eva_command.verify import main

if __name__ == "__main__":
    sys.exit(main())
