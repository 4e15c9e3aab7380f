"""Name what happens in videos: `python video/demo.py --help`."""

from eva_runs.extras import explained
from eva_video.commands import demo

if __name__ == "__main__":
    explained(demo)()
