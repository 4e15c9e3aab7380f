"""What a test's processes do (see tests/launcher.py): one of the commands."""

import matplotlib.figure  # noqa: F401 (here once, and not in each process)

from eva_video.evaluation import command, frozen_command


def main(arguments):
    name, *rest = arguments
    {"evaluate": command.main, "frozen": frozen_command.main}[name](rest)
