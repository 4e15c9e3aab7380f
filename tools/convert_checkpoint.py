"""Convert a checkpoint for another project: `python tools/convert_checkpoint.py --help`."""

import sys

from eva_command.convert import main

if __name__ == "__main__":
    sys.exit(main())
