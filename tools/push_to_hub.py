"""Publish a run on the Hugging Face hub: `python tools/push_to_hub.py --help`."""

import sys

from eva_command.push import main

if __name__ == "__main__":
    sys.exit(main())
