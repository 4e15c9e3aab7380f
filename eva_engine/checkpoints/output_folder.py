"""The output folder of a run, which one run at a time uses."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from eva_data.outputs.run_folder import locked
from eva_engine import distributed

_held: set[Path] = set()


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
