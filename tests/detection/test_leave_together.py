"""What the other processes do while the main one scores: they sit in no collective."""

import pytest

from eva_runs.interruption import EXIT_RUN_AGAIN

TIMEOUT, SCORING = 2.0, 2.7  # seconds; of a collective, and of the main process

# Two processes of gloo that evaluate once in EvalHook, in each of the scenarios. They ignore
# SIGTERM, which the launcher sends when one has ended, as training does.
PROGRAM = """
import datetime, os, signal, sys, time, types
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from eva_detection.training.processes import Evaluations

TIMEOUT, SCORING = map(float, sys.argv[1:3])

def slow():
    time.sleep(SCORING)
    return {"bbox": {"AP": 12.5}}

def fails():
    raise ValueError("broken annotations")

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def stopped():
    sys.exit(75)

SCENARIOS = {"slow": slow, "fails": fails, "killed": killed, "stopped": stopped}

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

def worker(rank, name, port):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    store = dist.TCPStore("127.0.0.1", port, 2, rank == 0)  # waits for both
    timeout = datetime.timedelta(seconds=TIMEOUT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timeout)
    score = SCENARIOS[name] if rank == 0 else dict
    hook = hooks.EvalHook(2, Evaluations(lambda: score()))
    with EventStorage() as storage:
        hook.trainer = types.SimpleNamespace(iter=1, max_iter=9, storage=storage)
        try:
            hook.after_step()
            hook.trainer.iter = 3
            score = dict
            hook.after_step()
        except (Exception, SystemExit) as error:
            say(name, rank, type(error).__name__, " ".join(str(error).split())[:150])
            raise
        say(name, rank, "goes on with", {k: v[0] for k, v in storage.latest().items()})
"""


@pytest.mark.slow
def test_two_processes(start, finish, tmp_path, in_two_processes):
    script = tmp_path / "evaluate.py"
    script.write_text(PROGRAM + in_two_processes)
    text = finish(start(str(script), str(TIMEOUT), str(SCORING)))
    lines = set(text.splitlines())

    def ends_of(name):
        return {line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")}

    assert ends_of("slow") == {
        "0 goes on with {'bbox/AP': 12.5}",
        "1 goes on with {}",
        "0 exit 0",
        "1 exit 0",
    }
    failed = "the evaluation has failed on the main process: ValueError: broken annotations"
    assert ends_of("fails") == {
        "0 ValueError broken annotations",
        f"1 OtherProcessError {failed}",
        "0 exit 1",
        "1 exit 1",
    }
    assert {"0 exit -9", "1 exit 1"} <= ends_of("killed")  # what it says may share a line
    assert {f"{rank} exit {EXIT_RUN_AGAIN}" for rank in (0, 1)} < ends_of("stopped")
