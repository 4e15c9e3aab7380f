"""What a test's processes do (see tests/launcher.py): one of the commands."""

import matplotlib.figure  # noqa: F401 (here once, and not in each process)

from eva_video.evaluation import command


def main(arguments):
    name, *rest = arguments
    {"evaluate": command.main}[name](rest)
