"""Processes whose parent is killed: none goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

LATE = """
import multiprocessing, os, sys, time
from pathlib import Path
from eva_runs.interruption import ignore_signals_in_worker

def work(parent):
    Path("begun").touch()
    while os.getppid() == parent:
        time.sleep(0.01)
    Path("pids").write_text(str(os.getpid()))
    ignore_signals_in_worker()
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    context.Process(target=work, args=(os.getpid(),)).start()
    while not Path("begun").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
"""
POOL = """
import os, time
from pathlib import Path
from eva_data.pools import ordered_map

def work(number):
    with Path("pids").open("a") as file:
        file.write(f"{os.getpid()} ")
    time.sleep(0.05)

if __name__ == "__main__":
    list(ordered_map(work, range(10000), workers=2, title="numbers", chunk=1))
"""
RANK = """
import os, time
from pathlib import Path
from eva_runs import processes
from eva_runs.interruption import StopSignal

processes.join_group("gloo")
stop = StopSignal()
with stop.listen():
    with Path("pids").open("a") as file:
        file.write(f"{os.getpid()} ")
    while not stop.requested:
        time.sleep(0.05)
Path(f"saved{processes.rank()}").touch()
"""


def ended(pids, seconds=20):
    """Whether all processes end in time; those that do not are killed."""
    processes = [psutil.Process(int(pid)) for pid in {*pids} if psutil.pid_exists(int(pid))]
    _, alive = psutil.wait_procs(processes, seconds)
    for process in alive:
        process.kill()
    return not alive


def wait_for_pids(folder, count):
    file, end = folder / "pids", time.monotonic() + 60
    while not file.exists() or len({*file.read_text().split()}) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return file.read_text().split()


def start(folder, text, *launcher):
    (folder / "orphans.py").write_text(text)
    path = os.pathsep.join(filter(None, sys.path))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *launcher, "orphans.py"]
    return subprocess.Popen(words, cwd=folder, env=environment)


def test_a_worker_ends_whose_parent_was_killed_while_it_started(tmp_path):
    start(tmp_path, LATE).wait(60)
    assert ended(wait_for_pids(tmp_path, 1))


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_workers_of_a_pool_end_with_their_parent(tmp_path, number):
    process = start(tmp_path, POOL)
    pids = wait_for_pids(tmp_path, 2)
    process.send_signal(number)
    process.wait(20)
    assert ended(pids)


@pytest.mark.slow
def test_processes_whose_torchrun_is_killed_save_and_end(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(tmp_path, RANK, *launcher)
    pids = wait_for_pids(tmp_path, 2)
    process.kill()
    process.wait(20)
    assert ended(pids)
    assert all(Path(tmp_path, f"saved{rank}").exists() for rank in range(2))
