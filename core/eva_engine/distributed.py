"""Processes of a run: their start, what they exchange, the output folder that they share."""

import contextlib
import logging
import os
import random
import socket
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from eva_backbone.checkpoints.runs.engine import CONFIG
from eva_engine.run_log import METRICS
from eva_runs.output_folder import clean_if_refused, locked
from eva_runs.record import STARTS, record_start

logger = logging.getLogger(__name__)

_VARIABLES = ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # and RANK
_set_here: dict[str, str | None] = {}  # what `start` has set, and what was there before


def start(device: str = "auto") -> torch.device:
    """Join the process group, or make one of a single process.

    Reads the variables that `torchrun` and `deepspeed` set (RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR, MASTER_PORT); without RANK the process is alone.

    Args:
        device: `cuda`, `cpu`, or `auto`.

    Returns:
        The device of this process.

    Raises:
        ValueError: If a GPU is asked for and this process has none, or if only some of
            the variables are set.
    """
    count = torch.cuda.device_count()
    on_gpu = device == "cuda" or (device == "auto" and count > 0)
    local = int(os.environ.get("LOCAL_RANK", 0))
    if on_gpu and local >= count:
        if not count:
            raise ValueError("device cuda: this machine has no GPU; use device=cpu")
        raise ValueError(f"process {local} of this machine has no GPU: it has {count}; use fewer "
                         "processes or device=cpu")  # fmt: skip
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "RANK" in os.environ:
        missing = [name for name in _VARIABLES if name not in os.environ]
        if missing:
            raise ValueError(
                f"RANK={os.environ['RANK']} is set but not {', '.join(missing)}: start with "
                "torchrun or deepspeed, or set all of them (docs/scaling.md)"
            )
    else:
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        alone["MASTER_PORT"] = str(_free_port())
        _set_here.update({name: os.environ.get(name) for name in alone})
        os.environ.update(alone)
    import deepspeed
    from deepspeed import ops
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel(logging.WARNING)
    # would compile a C++ extension for CPU inference that nothing here uses
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if on_gpu:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        deepspeed.init_distributed("nccl" if on_gpu else "gloo", verbose=False)
    return torch.device("cuda", local) if on_gpu else torch.device("cpu")


def stop() -> None:
    """Leave the process group; the variables of one that `start` made alone are as before."""
    if dist.is_initialized():
        dist.destroy_process_group()
    for name, before in _set_here.items():
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
    _set_here.clear()


def rank() -> int:
    """Return the number of this process among all."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def own_share(count: int) -> range:
    """Return this process's share of `count` indexes: every `world_size`-th one."""
    return range(rank(), count, world_size())


def sum_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """Add up numbers of all processes, in double precision.

    Args:
        values: Numbers, equally many on every process.
        device: Device on which the backend of the process group works.

    Returns:
        The sums.
    """
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    result: list[float] = tensor.tolist()
    return result


def gather(value: Any) -> list[Any]:
    """Collect a small object of every process, in the order of the processes."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def raise_together(error: Exception | None) -> None:
    """Raise an error on all processes; the same call on all of them.

    Args:
        error: Error of this process, or None.

    Raises:
        Exception: This process's own error, or else the first process's that has one.
    """
    errors = gather(error)
    if error is not None:
        raise error
    for other in errors:
        if other is not None:
            raise other


def seed_all(*numbers: int, purpose: str = "") -> None:
    """Seed Python, numpy and torch from several numbers at once.

    Args:
        *numbers: Such as seed, step and rank.
        purpose: Use of the random numbers; for another one, or other numbers, they are unrelated.
    """
    # numpy takes (1, 2) and (1, 2, 0) for the same, hence their count
    entropy = (zlib.crc32(purpose.encode()), len(numbers), *numbers)
    first, second = np.random.SeedSequence(entropy).generate_state(2, np.uint64).tolist()
    random.seed(first)
    np.random.seed(second % 2**32)  # noqa: NPY002 (augmentations of others draw from it)
    torch.manual_seed(first % 2**63)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
_TRACES = ("log.txt", "log_rank*.txt", "checkpoints", STARTS, CONFIG)  # of a run before it begins


@contextlib.contextmanager
def training_in(folder: Path) -> Iterator[None]:
    """Reserve the folder of a training, which leaves nothing in it if it is refused.

    Args:
        folder: The output folder; it is made if it is not there.

    Raises:
        FolderInUseError: As for `reserved`.
        UnwritableError: As for `reserved`.
    """
    with contextlib.ExitStack() as stack:
        if rank() == 0:
            begun = (folder / METRICS).exists
            stack.enter_context(clean_if_refused(folder, _TRACES, begun=begun))
        stack.enter_context(reserved(folder))
        yield


@contextlib.contextmanager
def evaluation_in(folder: Path | None) -> Iterator[None]:
    """Reserve the output of an evaluation and record its start; no output is fine too.

    Args:
        folder: The output folder; it is made if it is not there.

    Raises:
        FolderInUseError: As for `reserved`.
        UnwritableError: As for `reserved`.
    """
    with contextlib.ExitStack() as stack:
        if folder is not None:
            main = rank() == 0
            if main:
                begun = (folder / "results.json").exists
                stack.enter_context(clean_if_refused(folder, [STARTS], begun=begun))
            stack.enter_context(reserved(folder))  # fails now, not after hours
            if main:
                record_start(folder, "evaluation")
        yield


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder while the block runs; the same call on all processes.

    The main process holds the lock; inside, the same folder can be reserved again.

    Args:
        folder: The output folder; it is made if it is not there.

    Raises:
        FolderInUseError: A ValueError on all processes, if another run uses the folder.
        UnwritableError: On all processes, if nothing can be written in it.
    """
    # no look-up, as `resolve` makes one: NFS would remember that the folder is not there yet
    place = Path(os.path.abspath(folder))  # noqa: PTH100
    if place in _held.get():
        yield
        return
    with contextlib.ExitStack() as stack:
        problem: Exception | None = None
        if rank() == 0:
            try:
                stack.enter_context(locked(folder))
            except (ValueError, OSError) as error:
                problem = error
        raise_together(problem)
        token = _held.set(_held.get() | {place})
        stack.callback(_held.reset, token)
        yield
