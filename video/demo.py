"""Name what happens in videos: `python video/demo.py --help`."""

from eva_runs.commands import entry

if __name__ == "__main__":
    entry("eva_video.commands:demo")
