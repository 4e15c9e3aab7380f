"""Processes of a run: started by `torchrun`, `deepspeed`, Slurm with their variables, or alone."""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from eva_engine.config import require
from eva_runs.precision import require_device
from eva_runs.processes import (
    gather as gather,
    join_group,
    rank as rank,
    sum_over_ranks as sum_over_ranks,
    world_size as world_size,
)

_TIMEOUT = timedelta(minutes=30)  # for what the main process does alone, as DeepSpeed has it
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@contextlib.contextmanager
def process_group(device: str = "auto", *, alone: bool = True) -> Iterator[torch.device]:
    """Join the process group of the launcher while the block runs, and yield this process's device.

    Without a launcher the process is a group of its own, which DeepSpeed needs, unless it need not
    be `alone`. After an error the group stays as it is: taking it down needs all processes, and the
    others notice the end of this one.
    """
    if dist.is_initialized() or not (alone or int(os.environ.get("WORLD_SIZE", 1)) > 1):
        yield choose_device(device)
        return
    before = {name: os.environ.get(name) for name in _VARIABLES}
    process_device = start(device)
    try:
        yield process_device
    except SystemExit:  # on all processes alike
        stop(before)
        raise
    stop(before)


def start(device: str = "auto") -> torch.device:
    """Join the process group of `torchrun` or `deepspeed`; without RANK the process is alone.

    Returns:
        The device of this process.
    """
    process_device = choose_device(device)
    if process_device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    group: dict[str, Any] = {}
    if "RANK" not in os.environ:  # alone: no port, which another program may take meanwhile
        os.environ.update(zip(_VARIABLES, ("0", "1", "0", "127.0.0.1", "0"), strict=True))
        store = dist.HashStore()  # type: ignore[attr-defined]
        group = {"store": store, "rank": 0, "world_size": 1}
    missing = [name for name in _VARIABLES if name not in os.environ]
    require(not missing, f"RANK is set but not {', '.join(missing)} (docs/scaling.md)")
    if process_device.type == "cuda":
        torch.cuda.set_device(process_device)
    if not dist.is_initialized():
        backend = "nccl" if process_device.type == "cuda" else "gloo"
        join_group(backend, timeout=_TIMEOUT, **group)
    return process_device


def stop(environment: dict[str, str | None] | None = None) -> None:
    """Leave the process group; set the launcher's variables to what they were before `start`."""
    if dist.is_initialized():
        # DeepSpeed's own call also forgets its copies of the group, which a next run would use
        comm = sys.modules.get("deepspeed.comm")
        (comm if comm and comm.is_initialized() else dist).destroy_process_group()
    for name, before in (environment or {}).items():
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def choose_device(device: str = "auto") -> torch.device:
    """Choose the device of this process: a name of PyTorch's, or `auto` for a GPU if there is one.

    Raises:
        ValueError: If a GPU is asked for and this process has none.
    """
    count = torch.cuda.device_count()
    if device not in ("auto", "cuda"):
        return require_device(device)
    if device == "auto" and not count:
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", 0))
    return require_device(f"cuda:{local}")


def rank_indices(count: int) -> range:
    """Return this process's share of `count` indexes: every `world_size`-th one."""
    return range(rank(), count, world_size())
