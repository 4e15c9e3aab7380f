"""Detect objects in images and videos: `python detection/demo.py --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_detection.inference.command_line:demo")
