"""Lists that the first process of each machine reads, and all of its processes map."""

import os
import pickle
import shutil
import socket
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from eva_data.index import Table
from eva_runs.processes import first_then_others, gather, together, world_size

_KIND = "eva_runs shared list 1"


class SharedList(Sequence[Any]):
    """A list whose items are pickled in a mapped file, `content` up to each of `ends`."""

    def __init__(self, table: Table) -> None:
        self.content, self.ends = (np.asarray(table[name]) for name in ("content", "ends"))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        begin, end = int(self.ends[index - 1]) if index else 0, int(self.ends[index])
        return pickle.loads(self.content[begin:end].data)


def share_list(read: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """Read a list, and a small object with it, once on each machine, by a call of all processes.

    Each has a `SharedList`. If it is alone, or `read` gives no list, it has what `read` gives. The
    file is gone as soon as all have mapped it; TMPDIR is its folder.
    """
    if world_size() == 1:
        return read()
    folder = Path(tempfile.gettempdir(), f"eva-{gather(os.urandom(8).hex())[0]}")
    file = folder / "list.safetensors"

    def work() -> tuple[Any, Any]:
        if not folder.exists():
            folder.mkdir(mode=0o700)
            items, state = read()
            if not isinstance(items, list):
                return items, state
            _pack([*items, state]).save(file)
        elif not file.exists():
            return read()
        # without its file, which a worker that is spawned does not find
        shared = SharedList(Table(Table.open(file, kind=_KIND)))
        state, shared.ends = shared[len(shared) - 1], shared.ends[:-1]
        return shared, state

    try:
        return together(lambda: first_then_others(work, machine=_machine()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pack(items: Iterable[Any]) -> Table:
    content, ends = bytearray(), array("q")
    for item in items:
        content += pickle.dumps(item, protocol=-1)
        ends.append(len(content))
    arrays = {"content": np.frombuffer(content, np.uint8), "ends": np.asarray(ends)}
    return Table(arrays, kind=_KIND)


def _machine() -> tuple[Any, ...]:
    """Tell machines apart, also of one name; processes must share the folder of temporary files."""
    name, folder = socket.gethostname(), os.stat(tempfile.gettempdir())  # noqa: PTH116
    with suppress(OSError):
        name += Path("/proc/sys/kernel/random/boot_id").read_text()
    return name, folder.st_dev, folder.st_ino
