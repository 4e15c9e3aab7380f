"""Check weights on videos without training them: `python video/evaluate_frozen.py --help`."""

from eva_video.commands import evaluate_frozen

if __name__ == "__main__":
    evaluate_frozen()
