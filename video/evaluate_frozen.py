"""Check weights on videos without training them: `python video/evaluate_frozen.py --help`."""

from eva_video.evaluation.frozen_command import main

if __name__ == "__main__":
    main()
