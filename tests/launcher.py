"""Starts runs in processes of their own: imports once, then forks for each of them.

Reads one JSON line per job from its input and answers with the exit codes of the ranks. A job has
the arguments, the number of ranks, the start of the names of their logs, a limit in seconds, a
limit of the size of files, and a signal: which, whether to the entire process group, how many lines
of `metrics.jsonl` to wait for and how many seconds then.

A run ends as the program of a user does: by the end of its interpreter, which waits for what it
still has to wait for.
"""

import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 (imported in the first step)
import program
import torch._dynamo  # noqa: F401 (the same)
import tyro  # noqa: F401


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(job, rank, port):
    """In the child: one rank of a job, with a process group of its own like in a terminal."""
    os.setpgid(0, 0)
    output = os.open(f"{job['log']}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if job["ranks"] > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(job["ranks"]),
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))  # fmt: skip
    if size := job.get("file_size"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    program.main(job["arguments"])
    sys.exit()


class Timer:
    """Sends the signal of a job."""

    def __init__(self, job):
        self.job = job
        self.since = None if job.get("lines") else time.monotonic()
        self.pending = job.get("signal") is not None

    def check(self, pids):
        if self.pending and self.since is None and self.lines() >= self.job["lines"]:
            self.since = time.monotonic()
        if self.pending and self.since and time.monotonic() - self.since >= self.job["after"]:
            self.pending = False
            send = os.killpg if self.job["group"] else os.kill
            for pid in pids:
                send(pid, signal.Signals[self.job["signal"]])

    def lines(self):
        file = Path(self.job["metrics"])
        return file.read_bytes().count(b"\n") if file.exists() else 0


def main():
    for line in sys.stdin:
        job = json.loads(line)
        begin, port, codes = time.monotonic(), free_port(), {}
        for rank in range(job["ranks"]):
            pid = os.fork()
            if not pid:
                run(job, rank, port)
            codes[pid] = None
        timer = Timer(job)
        while alive := [pid for pid, code in codes.items() if code is None]:
            done, status = os.waitpid(-1, os.WNOHANG)
            if done:
                codes[done] = os.waitstatus_to_exitcode(status)
                continue
            timer.check(alive)
            if time.monotonic() - begin > job["limit"]:
                for pid in alive:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        sys.stdout.write(json.dumps(list(codes.values())) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
