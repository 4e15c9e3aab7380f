"""What a test's processes do (see tests/launcher.py): one of the commands."""

import sys

import matplotlib.figure  # noqa: F401 (here once, and not in each process)

from eva_classification import evaluate_command, frozen_command, training
from eva_classification.extraction import VIT_FEATURES
from eva_engine.extraction.command import extraction_command


def main(arguments):
    command, *rest = arguments
    if command == "train":
        sys.argv[1:] = rest
        training.main()
    else:
        {
            "evaluate": evaluate_command.main,
            "extract": extraction_command("extract", [VIT_FEATURES], about="Write."),
            "frozen": frozen_command.main,
        }[command](rest)
