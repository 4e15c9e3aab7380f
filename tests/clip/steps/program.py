"""What a test's processes do (see tests/launcher.py): steps, or a training run."""

import json
from pathlib import Path

import small_clip

from eva_engine import distributed
from eva_runs.errors import ending


def main(arguments):
    command, folder, settings = arguments
    with ending(command):
        distributed.start("cpu")
        getattr(small_clip, command)(Path(folder), **json.loads(settings))
        distributed.stop()
