"""What a test's processes do (see tests/launcher.py): `train`, or be killed inside a save."""

import sys

from killing import kill_in_save

from eva_video import commands
from eva_video.data.clips import TrainingClips  # noqa: F401 (here once, not in each process)


def main(arguments):
    command, *rest = arguments
    if command.startswith("killed_in_save_of_"):
        kill_in_save(int(command.rpartition("_")[2]))
    sys.argv[1:] = rest
    commands.train()
