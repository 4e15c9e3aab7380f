"""The number of a process on its machine, which the launcher knows; machines may share a name."""

import socket

import pytest

PROGRAM = """
import os
from detectron2.utils import comm
from eva_detection.training.processes import _join
_join(int(os.environ["LOCAL_RANK"]), on_gpu=False)
print(comm.get_rank(), comm.get_local_rank(), comm.get_local_size())
"""


@pytest.mark.parametrize(
    ("local_ranks", "variables", "ends"),
    [
        pytest.param((0, 0), {"LOCAL_WORLD_SIZE": "1"}, {"0 0 1", "1 0 1"}, marks=pytest.mark.slow),
        ((0, 0), {}, {"0 0 1", "1 0 1"}),  # of Slurm
        ((0, 1), {}, {"0 0 2", "1 1 2"}),
    ],
)
def test_two_machines_of_one_name(start, finish, monkeypatch, local_ranks, variables, ends):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    variables |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = []
    for rank, local in enumerate(local_ranks):
        for name, value in {**variables, "RANK": f"{rank}", "LOCAL_RANK": f"{local}"}.items():
            monkeypatch.setenv(name, value)
        both.append(start("-c", PROGRAM))
    assert {finish(one).strip().splitlines()[-1] for one in both} == ends
