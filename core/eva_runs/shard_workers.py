"""What computes shards: a task in processes of this machine, or in actors of a Ray cluster."""

import contextlib
import functools
import json
import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from eva_data import saving
from eva_data.files import printable
from eva_data.records import Record, read_shard
from eva_data.saving import replace_file, write_text
from eva_runs.commands import quiet_libraries
from eva_runs.errors import single_line_message
from eva_runs.interruption import block_signals, ignore_signals_in_worker
from eva_runs.output_folder import match_recorded_settings
from eva_runs.shards import WRITING, part_of, read_manifest

MODEL = "model.json"
MOST_DEATHS = 3  # of processes in one shard
AHEAD = 2  # shards that a process has, and batches that are decoded before their turn
_ROWS, _BYTES = 1024, 64 * 2**20  # of a row group
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)  # need no traceback
Chunk = list[tuple[str, "Future[Any]"]]  # names, and what is made of them


class Task(NamedTuple):
    """What is done with each record; all processes must have the same facts."""

    prepare: Callable[[Record], Any]  # in a thread; an OSError or ValueError is about the record
    compute: Callable[[list[Any]], Mapping[str, Any]]  # columns of the results
    schema: pa.Schema  # of them; `name` comes before
    facts: Mapping[str, Any]  # what the results depend on, besides the options


class Outcome(NamedTuple):
    """What became of a shard."""

    rows: int = 0
    errors: int = 0  # records that could not be read
    size: int = 0  # bytes of the file
    failure: str = ""  # why there is none
    fatal: bool = False  # whether all shards would fail so
    deaths: int = 0  # of processes in it; it is not done, and comes again later


@dataclass(frozen=True)
class Worker:
    """Computes shards of an output folder, by a task that is built once in a process."""

    folder: Path
    build: Callable[[dict[str, Any]], Task]  # from the options of the manifest; of a module
    batch_size: int  # records that are computed at once
    threads: int  # that read and decode
    device: str = "auto"

    def compute(self, number: int, deaths: int = 0) -> Outcome:
        """Compute a shard, if no more deaths than these are known; an error is in the outcome."""
        part, fatal = part_of(self.folder, number), False
        begun, failed = part.with_suffix(".begun"), part.with_suffix(".failed.txt")
        try:
            with begun.open("ab") as stream:
                died = stream.tell()
                if died >= MOST_DEATHS:
                    raise ChildProcessError(f"its process died {MOST_DEATHS} times")
                if died > deaths:  # and Ray has given it to the next one at once
                    return Outcome(deaths=died)
                stream.write(b"x")
            fatal = True
            (plan, task), fatal = _opened(self), False
            outcome = self._write(part, task, read_shard(plan, self.folder, number))
            failed.unlink(missing_ok=True)
        except Exception as error:
            is_expected = isinstance(error, _EXPECTED)
            message = printable(
                single_line_message(error) if is_expected else traceback.format_exc().strip()
            )
            fatal |= isinstance(error, (FloatingPointError, saving.UnwritableError))
            outcome = Outcome(failure=message, fatal=fatal)
            with contextlib.suppress(OSError):
                write_text(failed, f"{message}\n")
        with contextlib.suppress(OSError):
            begun.unlink()
        return outcome

    def _write(self, part: Path, task: Task, records: Iterator[Record]) -> Outcome:
        """Write results and errors of a shard."""
        schema = task.schema.insert(0, pa.field("name", pa.string()))
        errors, count, size, waiting = list[str](), 0, 0, list[pa.RecordBatch]()
        with replace_file(part) as file, pq.ParquetWriter(file, schema, **WRITING) as writer:
            for chunk in self._prepared(task, records):
                prepared = list[tuple[str, Any]]()
                for name, future in chunk:
                    try:
                        prepared.append((name, future.result()))
                    except (OSError, ValueError, MemoryError) as error:
                        errors.append(_about(name, error))
                for batch in _computed(task, prepared, schema, errors) if prepared else ():
                    waiting.append(batch)
                    count, size = count + len(batch), size + batch.nbytes
                if size >= _BYTES or sum(map(len, waiting)) >= _ROWS:
                    writer.write_table(pa.Table.from_batches(waiting, schema))
                    waiting, size = [], 0
            if waiting or not count:
                writer.write_table(pa.Table.from_batches(waiting, schema))
            listed = part.with_suffix(".errors.jsonl")
            write_text(listed, "".join(errors)) if errors else listed.unlink(missing_ok=True)
        return Outcome(count, len(errors), part.stat().st_size)

    def _prepared(self, task: Task, records: Iterator[Record]) -> Iterator[Chunk]:
        """Yield batches of prepared records; the next ones are prepared meanwhile."""
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(self.threads) as pool:

            def read() -> Chunk:
                chunk = islice(records, self.batch_size)
                return [
                    (printable(record.name), pool.submit(task.prepare, record)) for record in chunk
                ]

            ahead = deque(reader.submit(read) for _ in range(AHEAD))
            while chunk := ahead.popleft().result():
                ahead.append(reader.submit(read))
                yield chunk


def _about(name: str, error: Exception) -> str:
    return json.dumps({"name": name, "reason": printable(single_line_message(error))}) + "\n"


def _computed(
    task: Task, prepared: list[tuple[str, Any]], schema: pa.Schema, errors: list[str]
) -> list[pa.RecordBatch]:
    """Compute records, in halves where memory ends; one that alone is too large is an error."""
    names, values = zip(*prepared, strict=True)
    try:
        columns = {"name": names, **task.compute([*values])}
        return [pa.RecordBatch.from_pydict(columns, schema)]
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        if len(prepared) == 1:
            errors.append(_about(names[0], error))
            return []
    # behind the block, in which the error holds what has filled the memory
    middle = len(prepared) // 2
    halves = prepared[:middle], prepared[middle:]
    return [batch for half in halves for batch in _computed(task, half, schema, errors)]


@functools.cache
def _opened(worker: Worker) -> tuple[dict[str, Any], Task]:
    """Read the plan and build the task, once in a process; its facts are those of every other."""
    quiet_libraries()
    manifest = read_manifest(worker.folder)
    task = worker.build({**manifest["options"], "device": worker.device})
    match_recorded_settings(worker.folder / MODEL, task.facts)
    return manifest["plan"], task


class Processes:
    """Processes of this machine, spread over its GPUs, of which each that dies is replaced.

    By default, None, one for each GPU, or one; of `size` 0, a thread of this process.
    """

    def __init__(self, worker: Worker, size: int | None) -> None:
        self._worker, self._gpus = worker, list[str]()
        if worker.device != "cpu" and size != 0:
            import torch

            numbers = [*map(str, range(torch.cuda.device_count()))]
            visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(numbers)
            self._gpus = visible.split(",")[: len(numbers)]
        size = len(self._gpus) or 1 if size is None else size
        self.size = size or 1
        self._pools = [*map(self._start, range(size))] or [ThreadPoolExecutor(1)]

    def _start(self, slot: int) -> futures.Executor:
        threads = max(1, (os.cpu_count() or 1) // self.size)
        variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        if self._gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        context = multiprocessing.get_context("spawn")
        return futures.ProcessPoolExecutor(1, context, _begin, (variables,))

    def submit(self, slot: int, *shard: int) -> "Future[Outcome]":
        """Give a shard to a process."""
        try:
            with block_signals():  # until the process leaves Ctrl-C to this one
                return self._pools[slot].submit(self._worker.compute, *shard)
        except BrokenProcessPool:
            self._pools[slot] = self._start(slot)
            return self.submit(slot, *shard)

    def close(self) -> None:
        """End all processes at once."""
        for pool in self._pools:
            for process in [*(getattr(pool, "_processes", None) or {}).values()]:
                process.kill()
            pool.shutdown(cancel_futures=True)


def _begin(variables: dict[str, str]) -> None:
    os.environ.update(variables)  # before torch is imported
    ignore_signals_in_worker()


class Actors:
    """Actors of a Ray cluster, which restarts them and repeats their shards.

    The folder of the worker is the same on all machines; by default, None, one for each GPU or CPU.
    """

    def __init__(self, worker: Worker, address: str, size: int | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        ray.init(address=address, log_to_driver=False)
        resources, self.close = ray.cluster_resources(), ray.shutdown
        gpus = int(resources.get("GPU", 0))
        self.size = size or gpus or max(1, int(resources["CPU"]))
        settings = dict(num_cpus=1, num_gpus=min(gpus, 1), max_restarts=-1, max_task_retries=-1)
        actor: Any = ray.remote(Worker).options(**settings)
        self._actors = [actor.remote(**vars(worker)) for _ in range(self.size)]

    def submit(self, slot: int, *shard: int) -> "Future[Outcome]":
        """Give a shard to an actor."""
        future: Future[Outcome] = self._actors[slot].compute.remote(*shard).future()
        return future
