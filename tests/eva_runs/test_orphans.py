"""A process that loads data ends with its run, even when nobody reads what it has loaded."""

import contextlib
import os
import signal
import subprocess
import sys
import time

PROGRAM = """
import time
from torch.utils.data import DataLoader, Dataset
from eva_runs.interruption import leave_signals_to_the_run

class Large(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):  # more than a pipe holds, and not in shared memory
        return bytes(1_000_000)

loader = DataLoader(
    Large(), num_workers=1, batch_size=1, collate_fn=list, worker_init_fn=leave_signals_to_the_run
)
batches = iter(loader)
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
