"""What a test's processes do (see tests/launcher.py): one of the commands."""

import sys

import matplotlib.figure  # noqa: F401 (here once, and not in each process)

from eva_classification import (  # some of them here once, not in each process
    evaluate_command,
    evaluating,  # noqa: F401
    frozen_command,
    frozen_scoring,  # noqa: F401
    train_command,
    training,  # noqa: F401
)
from eva_classification.extraction import VIT_FEATURES
from eva_engine.commands.extraction import extraction_command


def main(arguments):
    command, *rest = arguments
    if command == "train":
        sys.argv[1:] = rest
        train_command.main()
    else:
        {
            "evaluate": evaluate_command.main,
            "extract": extraction_command("extract", [VIT_FEATURES], about="Write."),
            "frozen": frozen_command.main,
        }[command](rest)
