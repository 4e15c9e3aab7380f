"""What a test's processes do (see tests/launcher.py).

They `train`, or are killed inside a save; they `evaluate`; or they run a function of `small_clip`.
"""

import json
import sys
from pathlib import Path

import matplotlib.figure  # noqa: F401 (here once, and not in each process)
import small_clip
from killing import kill_in_save

from eva_contrastive import commands
from eva_contrastive.model.eva_clip import tokenize
from eva_engine import distributed
from eva_runs.errors import ending

tokenize("a")  # reads the vocabulary, here once too


def main(arguments):
    command, *rest = arguments
    if command == "evaluate":
        commands.evaluate(rest)
    elif hasattr(small_clip, command):
        folder, settings = rest
        with ending(command):
            distributed.start("cpu")
            getattr(small_clip, command)(Path(folder), **json.loads(settings))
            distributed.stop()
    else:
        if command.startswith("killed_in_save_of_"):
            kill_in_save(int(command.rpartition("_")[2]))
        sys.argv[1:] = rest
        commands.train()
