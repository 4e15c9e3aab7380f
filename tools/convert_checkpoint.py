"""Convert a checkpoint for another project: `python tools/convert_checkpoint.py --help`."""

import sys

from eva_command.joint import convert as main

if __name__ == "__main__":
    sys.exit(main())
