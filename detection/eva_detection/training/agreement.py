"""Agreement of the processes on errors, so that none waits for one that has gone."""

from collections.abc import Callable
from typing import TypeVar

from detectron2.utils import comm

Result = TypeVar("Result")


class OtherProcessError(RuntimeError):
    """Another process has failed and says why; this one ends with it."""


def together(work: Callable[[], Result]) -> Result:
    """Do something on all processes; if it fails on one, all raise.

    Args:
        work: Called on all; it must not wait for other processes, of which one may have failed
            in it before. It may where it can only fail on all alike.

    Returns:
        What `work` returned here.

    Raises:
        Exception: What `work` raised, on the first process with that message.
        OtherProcessError: On all others.
    """
    result, failure = None, None
    try:
        result = work()
    except Exception as error:
        failure = error
    raise_together(failure)
    return result  # type: ignore[return-value]


def as_main_process(find: Callable[[], bool]) -> bool:
    """Find something out on all processes; all return what the main process has found.

    Args:
        find: As `work` of `together`.
    """
    here = together(find)
    return bool(comm.all_gather(here)[0])


def raise_together(failure: Exception | None) -> None:
    """Raise what happened here, and `OtherProcessError` for what happened elsewhere.

    Args:
        failure: What happened here; the same call is made on all processes.

    Raises:
        Exception: The failure, on the first process with that message.
        OtherProcessError: On all others, if there is one.
    """
    if comm.get_world_size() == 1:
        if failure is not None:
            raise failure
        return
    found = comm.all_gather(None if failure is None else f"{type(failure).__name__}: {failure}")
    failed = [rank for rank, text in enumerate(found) if text is not None]
    if not failed:
        return
    rank = comm.get_rank()
    if failure is not None and found.index(found[rank]) == rank:
        raise failure
    first = found.index(found[rank]) if failure is not None else failed[0]
    raise OtherProcessError(f"process {first} has failed: {found[first]}") from failure
