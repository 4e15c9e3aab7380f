"""Data that one process of each machine reads, and whose arrays all of its processes map."""

import io
import os
import pickle
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from eva_data.index import Table
from eva_runs.processes import OtherProcessError, gather, rank, run_on_all_ranks, world_size

Result = TypeVar("Result")
_KIND = "eva_runs shared object 1"


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Keep the content of tensors apart, as that of arrays is."""
        is_tensor = type(value) is torch.Tensor
        return (torch.from_numpy, (value.numpy(),)) if is_tensor else NotImplemented


def share(build: Callable[[], Result]) -> Result:
    """Build an object once on each machine, by a call of all processes, which share its arrays.

    They lie in a file in TMPDIR, which is gone as soon as all have mapped it. While one process
    builds the others wait at the store: in a collective NCCL would end them after 30 minutes. What
    cannot be pickled is built by each.
    """
    if world_size() == 1:
        return build()
    folder = Path(tempfile.gettempdir())
    machine = socket.gethostname(), *folder.stat()[1:3]  # if others are called so, each builds
    members = gather((machine, f"eva-{os.urandom(8).hex()}"))
    first = next(number for number, member in enumerate(members) if member[0] == machine)
    file = folder / members[first][1]
    store = torch.distributed.distributed_c10d._get_default_store()

    def take() -> Result:
        if first != rank():
            while not store.check([file.name]):  # signals are heard meanwhile
                time.sleep(0.1)
            message = store.get(file.name).decode()
            if message:
                raise OtherProcessError(f"process {first} failed: {message}")
            return _read(file) if file.exists() else build()
        message = "it has ended"
        try:
            result = build()
            _write(result, file)
            message = ""
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            raise
        finally:
            store.set(file.name, message)
        return _read(file) if file.exists() else result

    try:
        return run_on_all_ranks(take)
    finally:
        file.unlink(missing_ok=True)


def _write(value: Any, file: Path) -> None:
    """Write a value and its arrays, unless it cannot be pickled."""
    arrays, stream = list[Any](), io.BytesIO()
    try:
        _Pickler(stream, 5, buffer_callback=lambda array: arrays.append(array.raw())).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return
    contents = enumerate([stream.getbuffer(), *arrays])
    Table({f"{n}": np.frombuffer(content, np.uint8) for n, content in contents}, kind=_KIND).save(
        file
    )


def _read(file: Path) -> Any:
    table = Table.open(file, kind=_KIND)
    content, *arrays = (table[f"{number}"].data for number in range(len(table)))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of what is read-only
        return pickle.loads(content, buffers=arrays)
