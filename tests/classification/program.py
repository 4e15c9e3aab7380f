"""What a test's processes do (see tests/programs.py): one of the commands."""

import matplotlib.figure  # noqa: F401 (here once, and not in each process)

from eva_classification import (  # some of them here once, not in each process
    commands,
    evaluation,  # noqa: F401
    training,  # noqa: F401
)


def main(arguments):
    command, *rest = arguments
    known = {"train": commands.train, "evaluate": commands.evaluate}
    (known | {"frozen": commands.evaluate_frozen})[command](rest)
