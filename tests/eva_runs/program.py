"""What `test_processes.py` runs in two processes: `main([name of a function, folder])`."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from eva_runs.errors import exit_on_error
from eva_runs.processes import gather, run_on_all_ranks, run_on_main_rank
from eva_runs.sharing import share


def main(arguments):
    """Run a function of this file in a process group, and print what it returns."""
    tempfile.tempdir = arguments[1]
    dist.init_process_group("gloo")
    sys.stdout.write(f"{globals()[arguments[0]](dist.get_rank())}\n")
    dist.destroy_process_group()


def agree(rank):
    """Return what a process learns of values and errors of both."""
    found = [gather(rank), run_on_main_rank(lambda: "main" if rank == 0 else "other")]
    for failing in (0, 1):
        try:
            run_on_all_ranks(lambda failing=failing: 1 / (rank != failing))
        except Exception as error:
            found.append(type(error).__name__)
    try:
        with exit_on_error("train"):
            raise ValueError("there is no such data")
    except SystemExit as end:
        found.append(end.code)
    return found


def map_arrays(rank):
    """Share arrays and tensors that one process reads, and what cannot be pickled."""
    reads = []

    def build(value):
        reads.append(rank)
        return value

    tensor = torch.arange(5.0)
    parts = share(lambda: build((["a", rank], np.arange(7, dtype=">i2"), tensor)))
    names, array, copy = parts
    assert names == ["a", 0]
    assert array.tolist() == [*range(7)]
    assert copy.equal(tensor)
    assert not array.flags.owndata  # a map of the file
    assert not array.flags.writeable
    assert reads == ([0] if rank == 0 else [])
    assert share(lambda: build(lambda: rank))() == rank  # it cannot be pickled
    assert reads == ([0, 0] if rank == 0 else [1])
    dist.barrier()
    return [*Path(tempfile.gettempdir()).glob("eva-*")]
