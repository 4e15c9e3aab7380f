"""Fine-tune a classifier of videos: `python video/train.py RECIPE --help`."""

from eva_video.training import main

if __name__ == "__main__":
    main()
