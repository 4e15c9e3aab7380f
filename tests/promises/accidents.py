"""Something happens to a program in one of its steps. Not a test.

    python accidents.py WHAT ARGUMENTS      # ARGUMENTS as behind `python`

WHAT is one of these, where N counts the steps of optimizers from 1:

    SIGTERM@N           this signal, after step N
    SIGTERM@N!          to all processes of the program's group
    SIGTERM@N/R         to process R of several alone
    nan@N               weights become NaN after step N; `/R` as above
    memory@N            a GPU's memory is full in the forward pass of step N; `/R` as above
    remove@N:FOLDER     this folder is removed after step N; `move@N:FOLDER` renames it
    shm:SIZE            /dev/shm, which is one of this program, has room for so much ("64k")
    rename:PATTERN      killed when a file or folder is about to get a name like this
    WHERE@N/R:FILE      process R is killed in step N: in its `forward` pass, an `all-reduce`, a
                        `save` or a data `worker`; or when it opens a checkpoint to `resume`. Only
                        once: FILE is there afterwards
    images:FILE         each process adds to FILE, with each step, the images opened since the last

Several are separated by commas.
"""

import contextlib
import ctypes
import fnmatch
import json
import os
import re
import runpy
import shutil
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


def _fill_memory(step, rank):
    steps = 0

    def count(*_):
        nonlocal steps
        steps += 1

    def fail(module, _):
        computes = module.training and any(True for _ in module.parameters())  # no augmentation
        if computes and steps >= step - 1 and rank in (None, _rank()):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0")

    register_optimizer_step_post_hook(count)
    torch.nn.modules.module.register_module_forward_pre_hook(fail)


def _lose_folder(kind, step, folder):
    steps = 0

    def lose(*_):
        nonlocal steps
        steps += 1
        if steps == step and _rank() == 0:
            shutil.rmtree(folder) if kind == "remove" else Path(folder).rename(f"{folder}_moved")

    register_optimizer_step_post_hook(lose)


def _limit_shared_memory(size):
    """Mount a small disk over /dev/shm, in a namespace of this process."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    new_user, new_mounts, private = 0x10000000, 0x00020000, 1 << 18 | 1 << 14
    assert not libc.unshare(new_user | new_mounts), os.strerror(ctypes.get_errno())
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    assert not libc.mount(b"none", b"/", None, private, None), os.strerror(ctypes.get_errno())
    failed = libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={size}".encode())
    assert not failed, os.strerror(ctypes.get_errno())


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


def fail_at(rank, step, where, once):
    """Kill a process of several, or a worker of it, in a step (from 1); the first time only."""
    steps = 0

    def count(*_):
        nonlocal steps
        steps += 1

    def fail(due):
        if due and _rank() == rank and not Path(once).exists():
            Path(once).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def see(event, arguments):
        if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        name, flags = os.fsdecode(arguments[0]), arguments[2]
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        checkpoint = re.search(r"\.pth$|\.pt$|model\.safetensors$", name)
        if where == "worker":
            fail(
                torch.utils.data.get_worker_info() is not None and re.search(r"\.jpe?g|png$", name)
            )
        else:
            due = steps >= step if where == "save" else not steps
            fail(checkpoint and due and bool(writes) == (where == "save"))

    def reduced(*arguments, **keywords):
        fail(steps == step - 1)
        return reduce(*arguments, **keywords)

    register_optimizer_step_post_hook(count)
    if where == "forward":
        torch.nn.modules.module.register_module_forward_pre_hook(
            lambda module, _: fail(module.training and steps == step - 1)
        )
    elif where == "all-reduce":
        reduce, torch.distributed.all_reduce = torch.distributed.all_reduce, reduced
    else:
        sys.addaudithook(see)


def prepare(what):
    """Let something happen to this process."""
    if found := re.fullmatch(r"(forward|all-reduce|save|worker|resume)@(\d+)/(\d+):(.*)", what):
        where, step, rank, once = found.groups()
        fail_at(int(rank), int(step), where, once)
        return
    if what.startswith("shm:"):
        _limit_shared_memory(what.removeprefix("shm:"))
        return
    if found := re.fullmatch(r"(remove|move)@(\d+):(.*)", what):
        _lose_folder(found[1], int(found[2]), found[3])
        return
    if what.startswith("images:"):
        _note_images(what.removeprefix("images:"))
        return
    if what.startswith("rename:"):
        _at_rename(what.removeprefix("rename:"))
        return
    kind, step, everyone, rank = re.fullmatch(r"(\w+)@(\d+)(!?)(?:/(\d+))?", what).groups()
    rank = None if rank is None else int(rank)
    if kind == "memory":
        _fill_memory(int(step), rank)
    else:
        _at_step(kind, int(step), bool(everyone), rank)


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
