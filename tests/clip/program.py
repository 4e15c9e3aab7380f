"""What a test's processes do (see tests/launcher.py): `train`, or be killed inside a save."""

import sys

from killing import kill_in_save

from eva_contrastive import commands
from eva_contrastive.config import TEXT_VARIANTS, TextVariant


def main(arguments):
    TEXT_VARIANTS["debug"] = TextVariant(16, 2, 1, context_length=32)  # as the recipe's fixture
    command, *rest = arguments
    if command.startswith("killed_in_save_of_"):
        kill_in_save(int(command.rpartition("_")[2]))
    sys.argv[1:] = rest
    commands.train()
