"""Fine-tune a classifier of videos: `python video/train.py RECIPE --help`."""

from eva_runs.commands import run_and_exit

if __name__ == "__main__":
    run_and_exit("eva_video.commands:train")
