"""What a test's processes do (see tests/launcher.py): the command."""

import matplotlib.figure  # noqa: F401 (here once, and not in each process)
import open_clip  # noqa: F401 (the same)

from eva_contrastive import commands
from eva_contrastive.model.eva_clip import tokenize

tokenize("a")  # reads the vocabulary, here once too


def main(arguments):
    commands.evaluate(arguments)
