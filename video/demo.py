"""Name what happens in videos: `python video/demo.py --help`."""

import sys

from eva_runs.commands import entry

if __name__ == "__main__":
    sys.exit(entry("eva_video.commands:demo"))
