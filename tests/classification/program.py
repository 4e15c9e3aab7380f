"""What a test's processes do (see tests/launcher.py): one of the commands."""

import sys

import matplotlib.figure  # noqa: F401 (here once, and not in each process)

from eva_classification import (  # some of them here once, not in each process
    commands,
    evaluation,  # noqa: F401
    training,  # noqa: F401
)


def main(arguments):
    command, *rest = arguments
    if command == "train":
        sys.argv[1:] = rest
        commands.train()
    else:
        {"evaluate": commands.evaluate, "frozen": commands.evaluate_frozen}[command](rest)
