"""Processes that load data: they end with their run, and a batch that does not come ends it."""

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader

from eva_runs.data_order import end_workers, guard_workers
from eva_runs.errors import exit_on_error

PROGRAM = """
import time
from torch.utils.data import DataLoader, Dataset
from eva_runs.data_order import guard_workers

class Large(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):  # more than a pipe holds, and not in shared memory
        return bytes(1_000_000)

loader = DataLoader(Large(), num_workers=1, batch_size=1, collate_fn=list)
batches = iter(guard_workers(loader))
next(batches)
print("loading", flush=True)
time.sleep(600)
"""


def ends(group, seconds):
    for _ in range(10 * seconds):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_workers_end_when_the_run_is_killed():
    """Its last samples wait in a pipe that it holds open itself, and it waited for their reader."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == "loading\n"
            time.sleep(1)  # the pipe fills
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            assert ends(run.pid, seconds=20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)


class Stuck:
    """A dataset whose samples meet an accident in the worker."""

    def __init__(self, accident):
        self.accident = accident

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.accident()
        return torch.zeros(8)


ACCIDENTS = {
    "open files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4)),
    "shared memory": lambda: os.kill(os.getpid(), signal.SIGBUS),
    "main memory": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "timed out after 2.0 seconds": lambda: time.sleep(5),
}


@pytest.mark.parametrize("reason", ACCIDENTS)
@pytest.mark.slow
def test_a_batch_that_does_not_come_ends_the_run_with_the_reason(reason, capfd):
    loader = guard_workers(DataLoader(Stuck(ACCIDENTS[reason]), num_workers=1), timeout=2.0)
    stream = iter(loader)
    with pytest.raises(SystemExit) as end, exit_on_error("train"):
        list(stream)
    end_workers(stream)
    assert not multiprocessing.active_children()
    said = capfd.readouterr().err
    assert end.value.code == 1
    assert reason in said
    assert "Traceback" not in said
