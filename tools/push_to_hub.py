"""Publish a run on the Hugging Face hub: `python tools/push_to_hub.py --help`."""

import sys

from eva_engine.publishing.command import main

if __name__ == "__main__":
    sys.exit(main())
