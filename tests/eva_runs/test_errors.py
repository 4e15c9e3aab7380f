"""Errors to exit codes, and agreement of processes on them."""

import socket
import subprocess
import sys

import pytest

from eva_runs.errors import exit_on_error
from eva_runs.processes import OtherProcessError


def ended(capsys, error, **options):
    with pytest.raises(SystemExit) as end, exit_on_error("train", **options):
        raise error
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("a\nb"), FileNotFoundError(2, "gone", "a.pth")])
def test_expected_error_is_one_line(capsys, error):
    code, said = ended(capsys, error)
    assert code == 1
    assert said.startswith("train: ")
    assert said.count("\n") == 1


WORK = """
import sys
import torch.distributed
from eva_runs.errors import exit_on_error
from eva_runs.processes import gather, run_on_main_rank, run_on_all_ranks

rank, port = map(int, sys.argv[1:])
address = f"tcp://127.0.0.1:{port}"
torch.distributed.init_process_group("gloo", address, rank=rank, world_size=2)
found = [gather(rank), run_on_main_rank(lambda: "main" if rank == 0 else "other")]
for failing in (0, 1):
    try:
        run_on_all_ranks(lambda: 1 / (rank != failing))
    except Exception as error:
        found.append(type(error).__name__)
try:
    with exit_on_error("train"):
        raise ValueError("there is no such data")
except SystemExit as end:
    found.append(end.code)
print(found)
torch.distributed.destroy_process_group()
"""


def test_two_processes_agree():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, str(rank), str(port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    ends = [one.communicate(timeout=120) for one in started]
    first, second = (out.strip() for out, _ in ends)
    other = OtherProcessError.__name__
    assert first == repr([[0, 1], "main", "ZeroDivisionError", other, 1])
    assert second == repr([[0, 1], "main", other, "ZeroDivisionError", 1])
    assert "".join(err for _, err in ends).count("there is no such data") == 1
