"""Work on any number of records in shards, by processes or by Ray, exactly once and in order.

The results of shard k are one Parquet file, whose name and bytes depend on k alone, and which is
there completely or not at all: who computes it, and how often, makes no difference.

    names, features = read_features("output/features")
"""

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from eva_data import saving
from eva_data.files import load_object, printable
from eva_data.progress import ProgressBar
from eva_data.records import Record, read_shard
from eva_data.saving import replace_file, write_text
from eva_runs.commands import quiet_libraries
from eva_runs.errors import TooManyUnreadableError, single_line_message
from eva_runs.interruption import StopSignal, block_signals, ignore_signals_in_worker
from eva_runs.output_folder import match_recorded_settings, require_room

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST, SETTINGS, MODEL, PARTS = "manifest.json", "settings.json", "model.json", "parts"
_AHEAD = 2  # shards that a process has, and batches that are decoded before their turn
_MOST_DEATHS, _MOST_FAILED = 3, 10  # of processes in one shard; shards
_ROWS, _BYTES = 1024, 64 * 2**20  # of a row group
_WRITING: Any = {"compression": "zstd", "write_page_checksum": True}
_SECONDS = 0.2  # between looks at signals
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
                if died >= _MOST_DEATHS:
                    raise ChildProcessError(f"its process died {_MOST_DEATHS} times")
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
        with replace_file(part) as file, pq.ParquetWriter(file, schema, **_WRITING) as writer:
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

            ahead = deque(reader.submit(read) for _ in range(_AHEAD))
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


# ---- processes -----------------------------------------------------------------------------------
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


# ---- a run ---------------------------------------------------------------------------------------
def run_shards(
    folder: Path,
    numbers: Sequence[int],
    pool: Processes | Actors,
    stop: StopSignal,
    max_errors: int,
    title: str = "batch",
) -> int:
    """Compute shards, until a `stop` is requested; return the number of those that failed.

    Raises:
        TooManyUnreadableError: After `max_errors` records in all.
        ValueError: If the task cannot be built, the disk is too small, or 10 shards failed.
    """
    errors, images, failed, began = summarise(folder).errors, 0, 0, time.monotonic()
    for number in numbers:  # of a run that was stopped
        part_of(folder, number).with_suffix(".begun").unlink(missing_ok=True)
        errors.pop(number, None)
    unreadable = sum(errors.values())
    with ProgressBar(len(numbers), title=title, unit="shard") as bar:
        for outcome in _outcomes(numbers, pool, stop):
            failed += bool(outcome.failure)
            if outcome.fatal or failed > _MOST_FAILED:
                raise ValueError(outcome.failure)
            if not images:
                require_room(folder, outcome.size * (len(numbers) - 1))
            images, unreadable = images + outcome.rows, unreadable + outcome.errors
            if unreadable > max_errors:
                message = (
                    f"{unreadable:,} records could not be read ({folder / PARTS}/*.errors.jsonl)"
                )
                raise TooManyUnreadableError(f"{message}; --max-errors is {max_errors}")
            rate = images / max(1e-9, time.monotonic() - began)
            bar.update(records=f"{images:,}", rate=f"{rate:,.3g}/s")
    return failed


def _outcomes(
    numbers: Sequence[int], pool: Processes | Actors, stop: StopSignal
) -> Iterator[Outcome]:
    """Yield the outcomes as they come; a shard whose process died is done again, at last alone."""
    waiting, ended, deaths = deque(numbers), set[int](), 0
    deaths_of_shards = Counter[int]()  # shard -> deaths in it
    last = deque[int]()  # those that go on alone
    flying = dict[Future[Outcome], tuple[int, int]]()  # slot and shard
    while len(ended) < len(numbers) and not stop.requested:
        if last and len(ended) + len(last) >= len(numbers):
            waiting.append(last.popleft())
        for depth, slot in product(range(_AHEAD), range(pool.size)):
            busy = sum(busy_slot == slot for busy_slot, _ in flying.values())
            if not waiting and not busy and isinstance(pool, Actors):  # some may be lost for good
                copies = Counter(number for _, number in flying.values() if number not in ended)
                waiting += [number for number, count in copies.items() if count == 1][:1]
            if waiting and busy <= depth:
                shard = waiting.popleft()
                flying[pool.submit(slot, shard, deaths_of_shards[shard])] = slot, shard
        for future in futures.wait(flying, _SECONDS, futures.FIRST_COMPLETED).done:
            _, number = flying.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                waiting.append(number)
                deaths += 1
                if deaths > _MOST_FAILED * pool.size:
                    raise ValueError("all processes die, perhaps for lack of memory")
                continue
            outcome = future.result()
            is_flying = any(number == other for _, other in flying.values())
            if number not in ended and outcome.deaths:
                deaths_of_shards[number] = outcome.deaths
                (last if outcome.deaths == _MOST_DEATHS - 1 else waiting).append(number)
            elif number not in ended and not (is_flying and outcome.failure):
                ended.add(number)
                deaths = 0
                yield outcome


# ---- files ---------------------------------------------------------------------------------------
class Summary(NamedTuple):
    """What there is of an output folder."""

    shards: int
    done: set[int]
    failed: dict[int, str]  # with the reasons
    errors: dict[int, int]  # shard -> number of records that could not be read
    rows: int  # results


def summarise(folder: Path, *, rows: bool = False) -> Summary:
    """Look at what there is of an output folder; with `rows`, find damaged files, as failed."""
    done, failed, errors, count = set[int](), dict[int, str](), dict[int, int](), 0
    shards = read_manifest(folder)["plan"]["shards"]
    for file in sorted((folder / PARTS).glob("part-*")):
        stem, _, kind = file.name.partition(".")
        number = int(digits) if (digits := stem.removeprefix("part-")).isdecimal() else shards
        if number >= shards:
            continue
        if kind == "errors.jsonl":
            errors[number] = file.read_bytes().count(b"\n")
        elif kind == "failed.txt":
            failed[number] = file.read_text(errors="replace").strip().rpartition("\n")[2]
        elif kind == "parquet":
            try:
                count += pq.read_metadata(file).num_rows if rows else 0
                done.add(number)
            except (pa.ArrowException, OSError) as error:
                failed[number] = f"{file} is damaged ({single_line_message(error)})"
    return Summary(shards, done, failed, errors, count)


def write_manifest(
    folder: Path, settings: dict[str, Any], options: dict[str, Any], plan: Callable[[], Any]
) -> None:
    """Write the manifest of an output folder once; a ValueError if it has other settings."""
    saving.make_folder(folder / PARTS)
    begun = (folder / MANIFEST).exists()
    own = {} if begun else plan()
    match_recorded_settings(folder / SETTINGS, settings)
    if not begun:
        manifest = json.loads(json.dumps({"options": options, "plan": own}))
        content = json.dumps(manifest | {"sha256": _digest_of(manifest)}) + "\n"
        write_text(folder / MANIFEST, content, once=True)
    if "names" in own and read_manifest(folder)["plan"] != own:  # another process was first
        (folder / own["names"]).unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of an output folder; an OSError if there is none."""
    manifest = load_object(folder / MANIFEST)
    noted = manifest.pop("sha256", None)
    if {*manifest} != {"options", "plan"} or noted != _digest_of(manifest):
        raise ValueError(f"{folder / MANIFEST} is damaged: compute it again in another folder")
    return manifest


def _digest_of(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def part_of(folder: Path, number: int) -> Path:
    """Name the results of a shard."""
    return folder / PARTS / f"part-{number:06}.parquet"


def read_parts(folder: Path) -> Iterator[pa.Table]:
    """Yield the row groups of all results in order; a ValueError if one is missing or damaged."""
    parts = [part_of(folder, number) for number in range(read_manifest(folder)["plan"]["shards"])]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        message = f"{folder} lacks {len(missing)} of {len(parts)} shards, such as {missing[0]}"
        raise ValueError(f"{message}: run the same command again to complete it")
    for part in parts:
        try:
            with pq.ParquetFile(part, pre_buffer=False, page_checksum_verification=True) as file:
                yield from map(file.read_row_group, range(file.num_row_groups))
        except (pa.ArrowException, OSError) as error:
            message = f"{part} is damaged ({error}): delete it and run the same command again"
            raise ValueError(message) from error


def merge_parts(folder: Path, file: Path) -> int:
    """Merge all results into one Parquet file; return the number of rows."""
    count, schema = 0, next(read_parts(folder)).schema
    with replace_file(file) as part, pq.ParquetWriter(part, schema, **_WRITING) as writer:
        for table in read_parts(folder):
            writer.write_table(table)
            count += len(table)
    return count


def read_features(folder: str | os.PathLike[str]) -> tuple[list[str], "Tensor"]:
    """Read all that `eva batch features` wrote; records that could not be read are not in it.

    Returns:
        Names (paths of images, or texts), and their features (B, C) or (B, C, h, w).

    Raises:
        ValueError: If they are not complete or damaged.
    """
    import torch

    names, parts = list[str](), list[Any]()
    for table in read_parts(Path(folder)):
        names += table["name"].to_pylist()
        parts.append(torch.from_numpy(_features(table).copy()))
    return names, torch.cat(parts)


def _features(table: pa.Table) -> Any:
    values = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, *json.loads(table.schema.metadata[b"shape"]))


def index_features(folder: Path, output: Path, *, approximate: bool) -> dict[str, Any]:
    """Build an index of the features of `eva batch features`; return what it says of them.

    Raises:
        ValueError: If there are no features of one vector each, or they are not complete.
    """
    from eva_data.neighbours import build_index

    manifest, first = read_manifest(folder), next(read_parts(folder), None)
    noted = {} if first is None else first.schema.metadata or {}
    shape = json.loads(noted.get(b"shape", b"[]"))
    if len(shape) != 1:
        raise ValueError(f"{folder} has no features of one vector each, but {shape or 'none'}")

    parts = ((table["name"].to_pylist(), _features(table)) for table in read_parts(folder))
    about = {"options": manifest["options"], "width": shape[0]}
    about["sha256"] = load_object(folder / SETTINGS).get("weights")
    about["count"] = summarise(folder, rows=True).rows
    build_index(parts, output, about=about, approximate=approximate)
    return about
