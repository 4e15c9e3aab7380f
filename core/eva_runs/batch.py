"""Work on any number of records in shards, by processes or by Ray, exactly once and in order.

The results of shard k are one Parquet file, whose name and bytes depend on k alone, and which is
there completely or not at all: who computes it, and how often, makes no difference.

    names, features = read_features("output/features")
"""

import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from eva_data.files import load_object
from eva_data.progress import ProgressBar
from eva_runs.errors import TooManyUnreadableError
from eva_runs.interruption import StopSignal
from eva_runs.output_folder import require_room
from eva_runs.shard_workers import AHEAD, MOST_DEATHS, Actors, Outcome, Processes
from eva_runs.shards import PARTS, SETTINGS, part_of, read_manifest, read_parts, summarise

if TYPE_CHECKING:
    from torch import Tensor

_MOST_FAILED = 10  # shards
_SECONDS = 0.2  # between looks at signals


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
        for depth, slot in product(range(AHEAD), range(pool.size)):
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
                (last if outcome.deaths == MOST_DEATHS - 1 else waiting).append(number)
            elif number not in ended and not (is_flying and outcome.failure):
                ended.add(number)
                deaths = 0
                yield outcome


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
