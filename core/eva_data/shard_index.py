"""Indexes of tar shards that runs save: built once, on all cores, and mapped by every process.

Each shard has a file, written when it has been read: an interruption loses the shards that are
being read, and one that has changed is read again alone. All are merged into the file that is
mapped, so that no process holds an index in memory.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.checks.findings import SHOWN, Findings, Kind
from eva_data.files import make_folder
from eva_data.index import INDEX_SUFFIX, Table, merge_tables
from eva_data.pools import ordered_map

logger = logging.getLogger(__name__)

_BYTES_OF_A_WORKER = 2**30  # fewer are read sooner than another process starts


def load_or_build(
    shards: Sequence[Path],
    index: Callable[[Path, Findings], Table],
    left_out: Findings,
    *,
    folder: Path,
    name: str,
    kind: str,
) -> Table:
    """Map the index of shards, and build what is missing of it or has another size or time.

    Args:
        shards: Tar files.
        index: Function of a module, or a `partial` of one, that indexes a single shard.
        left_out: Gains what `index` leaves out, now or earlier.
        folder: Folder of the indexes.
        name: What tells this index from others: the pattern of its shards and its settings.
        kind: Kind of the index.
    """
    parts = folder / _digest(name)
    file, states = parts.with_suffix(INDEX_SUFFIX), [_state(shard) for shard in shards]
    files = [parts / f"{_digest(path)}{INDEX_SUFFIX}" for path, *_ in states]
    table = _open(file, states, kind)
    if table is None:
        logger.info("indexes %d shards once, for all runs, in %s", len(shards), file)
        make_folder(parts)
        size = sum(state[1] for state in states)
        workers = min(len(os.sched_getaffinity(0)), 1 + size // _BYTES_OF_A_WORKER)
        jobs, shared = [*zip(shards, states, files, strict=True)], (index, left_out.kinds, kind)
        built = ordered_map(
            _build, jobs, workers=workers, what="indexing shards", chunk=1, shared=shared
        )
        merge_tables(file, files, [*built], kind=kind)
        table = Table.open(file, kind=kind)
    for _, findings in table.about:
        for problem, count, ids in findings:
            left_out.add_many(problem, count, ids)
    table.about = [[shard.name, size] for shard, (_, size, _) in zip(shards, states, strict=True)]
    return table


def _build(
    index: Callable[[Path, Findings], Table],
    kinds: Mapping[str, Kind],
    kind: str,
    job: tuple[Path, list[Any], Path],
) -> Any:
    """Index a shard, unless that is done; return its state, and what is left out."""
    shard, state, file = job
    table = _open(file, [state], kind)
    if table is None:
        left_out = Findings(kinds)
        arrays = index(shard, left_out)
        found = [[one["kind"], one["count"], one["ids"][:SHOWN]] for one in left_out.as_json()]
        table = Table(arrays, [[state, found]], kind=kind)
        table.save(file)
    return table.about[0]


def _open(file: Path, states: list[list[Any]], kind: str) -> Table | None:
    """Map an index of shards in these states; None if it is missing, damaged or of others."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        table = Table.open(file, kind=kind)
        if [state for state, _ in table.about] == states:
            return table
    return None


def _state(shard: Path) -> list[Any]:
    status = shard.stat()
    return [os.path.abspath(shard), status.st_size, status.st_mtime_ns]  # noqa: PTH100 (text)


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
