"""The output folder of a run, which one run at a time uses."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from eva_backbone.checkpoints.runs.engine import CONFIG
from eva_engine import distributed
from eva_engine.run_log import METRICS
from eva_runs.output_folder import clean_if_refused, locked
from eva_runs.record import STARTS, record_start

_held: set[Path] = set()
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
        if distributed.rank() == 0:
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
            main = distributed.rank() == 0
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
    if place in _held:
        yield
        return
    with contextlib.ExitStack() as stack:
        problem: Exception | None = None
        if distributed.rank() == 0:
            try:
                stack.enter_context(locked(folder))
            except (ValueError, OSError) as error:
                problem = error
        distributed.raise_together(problem)
        _held.add(place)
        stack.callback(_held.discard, place)
        yield
