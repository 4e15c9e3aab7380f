"""Processes of a run: agreement on results and errors, whichever framework has started them.

Everything stands on the default process group of `torch.distributed`; without one a process is
alone. torch is imported where it is used: a command line is checked before.
"""

import functools
import hashlib
import importlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, TypeVar

from eva_data.pools import end_with_parent

Result = TypeVar("Result")
_OF_A_PROCESS = ("device", "workers", "num_workers")  # settings without an effect on results
_VARIABLES = (
    "EVA_MAX_IMAGE_PIXELS",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


class OtherProcessError(RuntimeError):
    """Another process has failed and says why; this one ends with it."""


def _group() -> Any:
    """Return `torch.distributed` if there is a process group."""
    dist: Any = sys.modules.get("torch.distributed")  # half of it where its import was interrupted
    return dist if getattr(dist, "is_initialized", bool)() else None


def join_group(backend: str, **settings: Any) -> None:
    """Join the process group of a launcher, with the settings of `init_process_group`.

    A torchrun that starts the processes again keeps its store, in which those that died have left
    their addresses: each start gets names of its own there.

    Raises:
        ConnectionError: If the processes do not find each other.
    """
    dist: Any = importlib.import_module("torch.distributed")
    end_with_launcher()
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if start != "0" and "init_method" not in settings:
        store, number, size = next(iter(dist.rendezvous("env://")))
        store = dist.PrefixStore(f"start_{start}", store)
        settings |= {"store": store, "rank": number, "world_size": size}
    try:
        dist.init_process_group(backend, **settings)
    except dist.DistError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConnectionError(f"the processes do not find each other: {reason}") from error


def end_with_launcher() -> None:
    """Let a process save and end, as by SIGTERM, where its torchrun is killed."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))


def rank() -> int:
    """Return the number of this process among all."""
    group = _group()
    return group.get_rank() if group else 0


def world_size() -> int:
    """Return the number of processes."""
    group = _group()
    return group.get_world_size() if group else 1


def is_main() -> bool:
    """Return whether this process writes the files of the run."""
    return rank() == 0


def is_reporting_rank() -> bool:
    """Return whether this process says what all meet: the main one, or each machine's first.

    The latter before there is a process group.
    """
    return is_main() and (_group() is not None or os.environ.get("LOCAL_RANK", "0") == "0")


def claim_message(message: str) -> bool:
    """Return whether no other process has called this with a text, as far as can be known."""
    group = _group()
    if group is None or world_size() == 1:
        return True
    try:
        store = group.distributed_c10d._get_default_store()
        return bool(store.add(f"said: {message}", 1) == 1)
    except RuntimeError:  # the process that has the store is gone
        return True


def barrier() -> None:
    """Wait for all processes."""
    group = _group()
    if group and world_size() > 1:
        group.barrier()


def gather(value: Any) -> list[Any]:
    """Collect a small object of every process, in the order of the processes."""
    group = _group()
    if group is None or world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    group.all_gather_object(values, value)
    return values


def sum_over_ranks(values: list[float], device: Any) -> list[float]:
    """Add up as many numbers of each process in double precision, on the backend's device."""
    if world_size() == 1:
        return list(values)
    torch: Any = importlib.import_module("torch")
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(tensor)
    result: list[float] = tensor.tolist()
    return result


def require_same_settings(settings: Mapping[str, Any]) -> None:
    """Refuse a run whose processes have other settings, variables or versions; all make the call.

    `settings` is the resolved recipe, in any nesting. Device and number of workers may differ.

    Raises:
        ValueError: On all processes, with the name of the first difference and both values.
    """
    if world_size() == 1:
        return
    own = dict(_flatten(settings, ""))
    own |= {name: os.environ.get(name, "") for name in _VARIABLES}
    own["torch"] = metadata.version("torch")
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    if len({*gather(digest)}) == 1:
        return
    first, *others = gather(own)
    for number, other in enumerate(others, start=1):
        for name in sorted({*first, *other}):
            values = first.get(name, "not set"), other.get(name, "not set")
            if values[0] != values[1]:
                raise ValueError(
                    f"{name} is {values[0]} on process 0 and {values[1]} on process {number}: "
                    "start all processes with the same settings"
                )


def _flatten(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Iterate over dotted names and the text of each value, which has no address in memory."""
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _flatten(item, f"{name}.{key}" if name else str(key))
    elif name.rpartition(".")[2] not in _OF_A_PROCESS:
        yield name, re.sub(r" at 0x[0-9a-f]+", "", str(value))


def deterministic_average_hook(bucket: Any) -> Any:
    """Average a bucket of gradients over processes, for PyTorch's DistributedDataParallel.

    gloo's own order differs with the place in a bucket, and a first step has other buckets than the
    rest: three processes and more would continue with other roundings.
    """
    torch: Any = sys.modules["torch"]
    own = bucket.buffer().div_(world_size())
    parts = [torch.empty_like(own) for _ in range(world_size())]
    sent = torch.distributed.all_gather(parts, own, async_op=True).get_future()
    return sent.then(lambda _: functools.reduce(torch.Tensor.add_, parts))


def raise_on_all_ranks(error: Exception | None) -> None:
    """Raise an error of this process, if any, on all processes, which all make the call.

    Raises:
        Exception: This process's own error, on the first process with that message.
        OtherProcessError: On all others, if there is an error.
    """
    messages = gather(None if error is None else f"{type(error).__name__}: {error}")
    if not any(messages):
        return
    own = rank()
    first = messages.index(messages[own] or next(filter(None, messages)))
    if error is not None and first == own:
        raise error
    raise OtherProcessError(f"process {first} failed: {messages[first]}") from error


def run_on_all_ranks(work: Callable[[], Result]) -> Result:
    """Do something on all processes; if it fails on one, all raise, see `raise_on_all_ranks`.

    It must not wait for other processes, unless it fails on all alike.
    """
    failure: Exception | None = None
    try:
        result = work()
    except Exception as error:
        failure = error
    raise_on_all_ranks(failure)
    return result


def run_on_main_rank(work: Callable[[], Result]) -> Result:
    """Do something on the main process; all return its small result, or fail with it."""
    result: Result = gather(run_on_all_ranks(lambda: work() if is_main() else None))[0]
    return result


def destroy_group() -> None:
    """Leave a process group on gloo, which may abort a process that ends as its member.

    NCCL's is left to the end of the process: after an error, leaving it could wait for others. A
    group of one, which a calling program may go on to use, stays.
    """
    group = _group()
    if group and world_size() > 1 and group.get_backend() == "gloo":
        group.destroy_process_group()
