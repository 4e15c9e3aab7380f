"""What tests of batches start: a small task in processes, or on Ray, until the folder is done."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from eva_data.records import plan_records
from eva_runs.batch import run_shards
from eva_runs.interruption import StopSignal
from eva_runs.shard_workers import Actors, Processes, Task, Worker
from eva_runs.shards import summarise, write_manifest


def build(options):
    """Make a task of mean colors, whose process dies of a red image."""

    def prepare(record):
        color = np.asarray(record.image()).mean((0, 1))
        if color[0] == 255 and Path(options["poison"]).is_file():
            os.kill(os.getpid(), signal.SIGKILL)
        return color

    def compute(prepared):
        time.sleep(options["seconds"])
        if len(prepared) > options["memory"]:
            raise type("OutOfMemoryError", (RuntimeError,), {})("no memory")
        return {"color": list(np.float32(prepared))}

    return Task(
        prepare, compute, pa.schema({"color": pa.list_(pa.float32(), 3)}), {"kind": "color"}
    )


def begin(folder, source, **options):
    """Write the manifest of a folder."""
    size = options.pop("size", None)
    options = {"seconds": 0, "poison": "", "memory": 99, **options}
    plan = lambda: plan_records([str(source)], folder, size=size)  # noqa: E731
    write_manifest(folder, {"input": str(source)}, options, plan)


def compute(folder, *, processes=0, address=None, actors=None, max_errors=10**6):
    """Compute what is missing; return what `run_shards` does."""
    worker = Worker(folder, build, batch_size=16, threads=1, device="cpu")
    known = summarise(folder)
    pool = Actors(worker, address, actors) if address else Processes(worker, processes)
    stop = StopSignal()
    try:
        with stop.listen(to_children=True):
            numbers = sorted({*range(known.shards)} - known.done)
            failed = run_shards(folder, numbers, pool, stop, max_errors)
    finally:
        pool.close()
    return 75 if stop.requested else failed


if __name__ == "__main__":
    sys.exit(compute(Path(sys.argv[1]), **json.loads(sys.argv[2])))
