"""Work on any number of records in shards, by processes or by Ray, exactly once and in order.

The results of shard k are one Parquet file, whose name and bytes depend on k alone, and which is
there completely or not at all: who computes it, and how often, makes no difference.

    names, features = read_features("output/features")
"""

import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
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
        for outcome in _Schedule(numbers, pool).outcomes(stop):
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


class _Schedule:
    """Which shards the processes do; one whose process died is done again, at last alone."""

    def __init__(self, numbers: Iterable[int], pool: Processes | Actors) -> None:
        self._pool, self._waiting = pool, deque(numbers)
        self._left = {*self._waiting}
        self._alone = deque[int]()  # shards that wait until no other is left
        self._deaths = 0  # of processes since the last outcome
        self._deaths_of_shards = Counter[int]()
        self._flying = dict[Future[Outcome], tuple[int, int]]()  # slot and shard

    def outcomes(self, stop: StopSignal) -> Iterator[Outcome]:
        """Yield the outcomes as they come, in any order."""
        while self._left and not stop.requested:
            if self._alone and len(self._alone) >= len(self._left):
                self._waiting.append(self._alone.popleft())
            for depth, slot in product(range(AHEAD), range(self._pool.size)):
                self._submit(slot, depth)
            for future in futures.wait(self._flying, _SECONDS, futures.FIRST_COMPLETED).done:
                yield from self._finish(future)

    def _submit(self, slot: int, depth: int) -> None:
        """Give a process its next shard, unless it has more than `depth`."""
        busy = sum(busy_slot == slot for busy_slot, _ in self._flying.values())
        if not self._waiting and not busy and isinstance(self._pool, Actors):
            # some may be lost for good: one of those is done twice
            copies = Counter(shard for _, shard in self._flying.values() if shard in self._left)
            self._waiting += [shard for shard, count in copies.items() if count == 1][:1]
        if self._waiting and busy <= depth:
            shard = self._waiting.popleft()
            future = self._pool.submit(slot, shard, self._deaths_of_shards[shard])
            self._flying[future] = slot, shard

    def _finish(self, future: Future[Outcome]) -> Iterator[Outcome]:
        """Yield the outcome of a shard, or let it be done again."""
        _, shard = self._flying.pop(future)
        if isinstance(future.exception(), BrokenProcessPool):
            self._waiting.append(shard)
            self._deaths += 1
            if self._deaths > _MOST_FAILED * self._pool.size:
                raise ValueError("all processes die, perhaps for lack of memory")
            return
        outcome = future.result()
        if shard not in self._left:
            return
        is_flying = any(shard == other for _, other in self._flying.values())
        if outcome.deaths:
            self._deaths_of_shards[shard] = outcome.deaths
            (self._alone if outcome.deaths == MOST_DEATHS - 1 else self._waiting).append(shard)
        elif not (is_flying and outcome.failure):
            self._left.remove(shard)
            self._deaths = 0
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
