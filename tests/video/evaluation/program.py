"""What a test's processes do (see tests/programs.py): one of the commands."""

import matplotlib.figure  # noqa: F401 (here once, and not in each process)

from eva_video import commands


def main(arguments):
    name, *rest = arguments
    {"evaluate": commands.evaluate, "frozen": commands.evaluate_frozen}[name](rest)
