"""Something happens to a program in one of its steps. Not a test.

    python accidents.py WHAT ARGUMENTS      # ARGUMENTS as behind `python`

WHAT is one of these, where N counts the steps of optimizers from 1:

    SIGTERM@N           this signal, after step N
    SIGTERM@N!          to all processes of the program's group
    SIGTERM@N/R         to process R of several alone
    nan@N               weights become NaN after step N; `/R` as above
    rename:PATTERN      killed when a file or folder is about to get a name like this
    images:FILE         each process adds to FILE, with each step, the images opened since the last

Several are separated by commas.
"""

import contextlib
import fnmatch
import json
import os
import re
import runpy
import signal
import sys
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


def _spoil(optimizer):
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.data.fill_(float("nan"))


def _rank():
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _at_step(kind, step, everyone, rank):
    count = 0

    def hook(optimizer, *_):
        nonlocal count
        count += 1
        if count != step or (rank is not None and _rank() != rank):
            return
        if kind == "nan":
            _spoil(optimizer)
        elif everyone:
            os.killpg(os.getpgid(0), signal.Signals[kind])
        else:
            os.kill(os.getpid(), signal.Signals[kind])

    register_optimizer_step_post_hook(hook)


def _at_rename(pattern):
    def hook(event, arguments):
        if event == "os.rename" and fnmatch.fnmatch(Path(os.fsdecode(arguments[1])).name, pattern):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _note_images(file):
    opened = []

    def see(event, arguments):
        if event == "open" and str(arguments[0]).endswith(".jpg") and "r" in str(arguments[1]):
            name = Path(os.fsdecode(arguments[0])).name
            if opened[-1:] != [name]:  # some readers open a file twice
                opened.append(name)

    def note(*_):
        with open(file, "a") as lines:
            lines.write(json.dumps([_rank(), opened]) + "\n")
        opened.clear()

    sys.addaudithook(see)
    register_optimizer_step_post_hook(note)


def prepare(what):
    """Let something happen to this process."""
    if what.startswith("images:"):
        _note_images(what.removeprefix("images:"))
        return
    if what.startswith("rename:"):
        _at_rename(what.removeprefix("rename:"))
        return
    kind, step, everyone, rank = re.fullmatch(r"(\w+)@(\d+)(!?)(?:/(\d+))?", what).groups()
    _at_step(kind, int(step), bool(everyone), None if rank is None else int(rank))


if __name__ == "__main__":
    for each in sys.argv[1].split(","):
        prepare(each)
    if sys.argv[2] == "-m":
        sys.argv = sys.argv[3:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[2:]
        with contextlib.suppress(IndexError):
            sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
