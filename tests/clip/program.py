"""What a test's processes do (see tests/programs.py).

They `evaluate`, or they run a function of `small_clip`.
"""

import json
from pathlib import Path

import matplotlib.figure  # noqa: F401 (here once, and not in each process)
import small_clip

from eva_contrastive import commands
from eva_contrastive.model.eva_clip import tokenize
from eva_engine import distributed
from eva_runs.errors import exit_on_error

tokenize("a")  # reads the vocabulary, here once too


def main(arguments):
    command, *rest = arguments
    if command == "evaluate":
        commands.evaluate(rest)
        return
    folder, settings = rest
    with exit_on_error(command):
        distributed.start("cpu")
        getattr(small_clip, command)(Path(folder), **json.loads(settings))
        distributed.stop()
