"""The processes of a run on this machine: how they start, find each other and end together."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.resource_tracker import ensure_running
from typing import Any

import torch
from detectron2.engine.launch import DEFAULT_TIMEOUT, _find_free_port
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException
from torch.multiprocessing.spawn import start_processes as start_all

from eva_detection.command_line import TrainingRequest
from eva_runs.commands import program_name, quiet_libraries
from eva_runs.errors import exit_on_error, print_error
from eva_runs.interruption import (
    EXIT_KEYBOARD,
    StopSignal,
    block_signals,
    unblock_signals,
)
from eva_runs.processes import gather, join_group


def start_processes(
    run: Callable[[TrainingRequest], int], request: TrainingRequest, *, on_gpu: bool
) -> int:
    """Start the processes of a run on this machine, and end when they have ended.

    One that a launcher has started joins the others in their place.
    """
    if request.launched:
        return _run(int(os.environ["LOCAL_RANK"]), run, request, on_gpu)
    # it says which process it ends
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    if request.dist_url == "auto" and request.num_machines == 1:
        request = replace(request, dist_url=f"tcp://127.0.0.1:{_find_free_port()}")
    try:
        with StopSignal().listen(to_children=True):
            ensure_running()  # it would let through what is held back
            with block_signals():  # a process takes them once it has imported what it needs
                started = start_all(_run, (run, request, on_gpu), request.num_gpus, join=False)
            while not started.join():
                pass
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():  # which have it, too
            child.join(5)
            child.kill()
        sys.exit(EXIT_KEYBOARD)
    except ProcessExitedException as error:
        if not error.signal_name:
            sys.exit(error.exit_code)
        reason = "which the system sends for want of memory, for example"
        print_error(f"{program_name('train_net.py')}: {error}, {reason}")
        sys.exit(1)
    return 0


def _run(
    local_rank: int, run: Callable[[TrainingRequest], int], request: TrainingRequest, on_gpu: bool
) -> int:
    """Run a process of this machine as a member of the group of all."""
    os.environ["LOCAL_RANK"] = str(local_rank)
    quiet_libraries()
    with exit_on_error(program_name("train_net.py")):
        unblock_signals()
        _join(local_rank, request, on_gpu)
    return run(request)


def _join(local_rank: int, request: TrainingRequest, on_gpu: bool) -> None:
    """Join the process group, as detectron2's `launch` does."""
    address: dict[str, Any] = {}
    if not request.launched:
        rank, size = request.machine_rank * request.num_gpus, request.processes
        address = dict(init_method=request.dist_url, rank=rank + local_rank, world_size=size)
    count = torch.cuda.device_count() if on_gpu else 0
    if 0 < count <= local_rank:
        raise ValueError(f"process {local_rank} of this machine has no GPU: there are {count}")
    join_group("nccl" if count else "gloo", timeout=DEFAULT_TIMEOUT, **address)
    if count:
        torch.cuda.set_device(local_rank)
    here = max(gather(local_rank)) + 1  # of Slurm, which sets no LOCAL_WORLD_SIZE
    comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", here)))
