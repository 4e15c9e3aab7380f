"""Processes of a run: started by `torchrun`, `deepspeed`, Slurm with their variables, or alone."""

import contextlib
import logging
import os
import random
import socket
import zlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist

from eva_runs.processes import barrier as barrier
from eva_runs.processes import gather as gather
from eva_runs.processes import raise_together as raise_together
from eva_runs.processes import rank as rank
from eva_runs.processes import world_size as world_size

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@contextlib.contextmanager
def joined(device: str = "auto", *, alone: bool = True) -> Iterator[torch.device]:
    """Join the process group of the launcher while the block runs.

    After an error the group stays as it is: taking it down needs all processes, and the others
    notice the end of this one.

    Args:
        device: `cuda`, `cpu`, or `auto` for a GPU where there is one.
        alone: Make a group of a single process where there is no launcher, which DeepSpeed needs.

    Yields:
        The device of this process.

    Raises:
        ValueError: As for `start`.
    """
    if dist.is_initialized() or not (alone or int(os.environ.get("WORLD_SIZE", 1)) > 1):
        yield choose_device(device)
        return
    before = {name: os.environ.get(name) for name in _VARIABLES}
    place = start(device)
    try:
        yield place
    except SystemExit:  # on all processes alike
        stop(before)
        raise
    stop(before)


def start(device: str = "auto") -> torch.device:
    """Join the process group, or make one of a single process.

    Reads the variables that `torchrun` and `deepspeed` set (RANK, WORLD_SIZE, LOCAL_RANK,
    MASTER_ADDR, MASTER_PORT); without RANK the process is alone.

    Args:
        device: As for `joined`.

    Returns:
        The device of this process.

    Raises:
        ValueError: If a GPU is asked for and this process has none, or if only some of
            the variables are set.
    """
    place = choose_device(device)
    if place.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone | {"MASTER_PORT": str(_free_port())})
    elif missing := [name for name in _VARIABLES if name not in os.environ]:
        raise ValueError(
            f"RANK={os.environ['RANK']} is set but not {', '.join(missing)}: start with "
            "torchrun or deepspeed, or set all of them (docs/scaling.md)"
        )
    import deepspeed
    from deepspeed import ops
    from deepspeed.utils import logger as deepspeed_logger

    deepspeed_logger.setLevel(logging.WARNING)
    # would compile a C++ extension for CPU inference that nothing here uses
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        deepspeed.init_distributed("nccl" if place.type == "cuda" else "gloo", verbose=False)
    return place


def stop(environment: dict[str, str | None] | None = None) -> None:
    """Leave the process group.

    Args:
        environment: Variables of the launcher as they were before `start`; None leaves them.
    """
    if dist.is_initialized():
        from deepspeed import comm

        # DeepSpeed's own call also forgets its copies of the group, which a next run would use
        (comm if comm.is_initialized() else dist).destroy_process_group()
    for name, before in (environment or {}).items():
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def choose_device(device: str = "auto") -> torch.device:
    """Choose the device of this process.

    Args:
        device: Name in PyTorch, or `auto` for a GPU where there is one.

    Raises:
        ValueError: If a GPU is asked for and this process has none.
    """
    count = torch.cuda.device_count()
    if device not in ("auto", "cuda"):
        return torch.device(device)
    if device == "auto" and not count:
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", 0))
    if local >= count:
        raise ValueError(f"device {device}: process {local} of this machine has no GPU, of which "
                         f"there are {count}; use fewer processes, or cpu")  # fmt: skip
    return torch.device("cuda", local)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Choose a number format: by default (`auto`) fp16 on a GPU, as officially, else fp32."""
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return DTYPES[precision]


def own_share(count: int) -> range:
    """Return this process's share of `count` indexes: every `world_size`-th one."""
    return range(rank(), count, world_size())


def sum_over_ranks(values: list[float], device: torch.device) -> list[float]:
    """Add up numbers of all processes, in double precision.

    Args:
        values: Numbers, equally many on every process.
        device: Device on which the backend of the process group works.
    """
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    result: list[float] = tensor.tolist()
    return result


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
