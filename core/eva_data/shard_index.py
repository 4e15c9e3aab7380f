"""Saved indexes of tar shards: read once, on all cores, and mapped by every later run.

A shard that has been read has a file, which an interruption leaves and other lists of shards share.
All are merged into the file that is mapped; no process has an index in memory.
"""

import contextlib
import hashlib
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.checks.findings import SHOWN, Findings, Kind
from eva_data.files import make_folder
from eva_data.index import INDEX_SUFFIX, Table, merge_tables
from eva_data.pools import ordered_map

logger = logging.getLogger(__name__)

_BYTES_OF_A_WORKER = 2**30  # fewer are read sooner than another process starts
Index = Callable[[Sequence[Path], Findings], Table]


def load_or_build(
    shards: Sequence[Path],
    index: Index,
    left_out: Findings,
    folder: Path,
    *,
    kind: str,
    key: str | None = None,
) -> Table:
    """Map the index of shards, after reading those that are new or have another size or time.

    `index` reads shards by a setting `key`, and `left_out` gains what it leaves out, or has before.
    """
    seen = [(str(shard.absolute()), shard.stat()) for shard in shards]
    states = [[path, status.st_size, status.st_mtime_ns] for path, status in seen]
    files = [folder / "shards" / _name(kind, key, state[0]) for state in states]
    file = folder / _name(*map(str, files))
    table = _open(file, states, kind)
    if table is None:
        logger.info("indexes %d shards once, in %s", len(shards), folder)
        make_folder(folder / "shards")
        size = sum(status.st_size for _, status in seen)
        workers = min(len(os.sched_getaffinity(0)), 1 + size // _BYTES_OF_A_WORKER)
        jobs, title = [*zip(shards, states, files, strict=True)], "indexing shards"
        random.Random().shuffle(jobs)  # machines that begin together share the work
        shared = (index, left_out.kinds, kind)
        built = ordered_map(_build, jobs, workers=workers, title=title, chunk=1, shared=shared)
        about = {entry[0][0]: entry for entry in built}
        merge_tables(file, files, [about[state[0]] for state in states], kind=kind)
        table = Table.open(file, kind=kind)
    for _, findings in table.about:
        for problem, count, ids in findings:
            left_out.add_many(problem, count, ids)
    table.about = [[shard.name, state[1]] for shard, state in zip(shards, states, strict=True)]
    return table


def _build(
    index: Index, kinds: Mapping[str, Kind], kind: str, job: tuple[Path, list[Any], Path]
) -> Any:
    """Index a shard, unless that is done; return its state, and what is left out."""
    shard, state, file = job
    table = _open(file, [state], kind)
    if table is None:
        arrays = index([shard], left_out := Findings(kinds))
        summary = [
            [finding["kind"], finding["count"], finding["ids"][:SHOWN]]
            for finding in left_out.as_json()
        ]
        table = Table(arrays, [[state, summary]], kind=kind)
        table.save(file)
    return table.about[0]


def _open(file: Path, states: list[list[Any]], kind: str) -> Table | None:
    """Map an index of shards in these states; None if it is missing, damaged or of others."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        table = Table.open(file, kind=kind)
        if [state for state, _ in table.about] == states:
            return table
    return None


def _name(*words: Any) -> str:
    return hashlib.sha256(os.fsencode("\n".join(map(str, words)))).hexdigest()[:16] + INDEX_SUFFIX
