"""What one process of a machine has read: its arrays and tensors are mapped by two."""

import subprocess
import sys

PROGRAM = """
import glob, os, tempfile
import numpy as np
import torch
import torch.distributed as dist
from eva_runs.sharing import share

dist.init_process_group("gloo")
rank, reads = dist.get_rank(), []

def build(value):
    reads.append(rank)
    return value

tensor = torch.arange(5.0)
names, array, copy = share(lambda: build((["a", rank], np.arange(7, dtype=">i2"), tensor)))
assert names == ["a", 0] and array.tolist() == [*range(7)] and copy.equal(tensor)
assert not array.flags.owndata and not array.flags.writeable  # a map of the file
assert reads == ([0] if rank == 0 else [])
assert share(lambda: build(lambda: rank))() == rank  # it cannot be pickled
assert reads == ([0, 0] if rank == 0 else [1])
dist.barrier()
assert glob.glob(tempfile.gettempdir() + "/eva-*") == []
dist.destroy_process_group()
"""


def test_two_processes(tmp_path, monkeypatch):
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*launch, tmp_path / "program.py"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
