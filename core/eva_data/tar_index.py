"""Random access into tar shards by an index of where every member lies."""

import contextlib
import hashlib
import itertools
import logging
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.checks.findings import SHOWN, Findings, Kind
from eva_data.files import require_regular_file
from eva_data.index import IMAGE_KIND, INDEX_SUFFIX, Names, StoredFiles, Table, damaged
from eva_data.pools import ordered_map
from eva_data.saving import make_folder
from eva_data.tar import Member, key_of

logger = logging.getLogger(__name__)

_OF_A_WORKER = 2**30  # bytes of shards; fewer are read sooner than another process starts
PLACES = ("shard", "offset", "size")  # arrays of an index
ShardIndexer = Callable[[Path, Findings], Table]


class TarIndex(StoredFiles):
    """Files in tar shards by their places; see `index_shards`."""

    def __init__(self, shards: Sequence[Path], table: Table) -> None:
        super().__init__(table)
        self.shards = shards
        actual = [[shard.name, shard.stat().st_size] for shard in shards]
        shard_facts = table.about if isinstance(table.about, list) else []
        if shard_facts != actual:
            differ = (a or b for a, b in itertools.zip_longest(actual, shard_facts) if a != b)
            raise damaged("the index", f"{next(differ)} is new, gone or of another size")
        table.require_equal_lengths(*PLACES, length=len(self.names))

    def sample_id(self, index: int) -> str:
        """Name shard and member, `folder/shard-0000.tar:key.jpg`."""
        return f"{self._shard(index)}:{self.names[index]}"

    def _shard(self, index: int) -> Path:
        number = int(self.table["shard"][index])
        if not 0 <= number < len(self.shards):
            raise damaged("the index", f"{index} is in shard {number} of {len(self.shards)}")
        return self.shards[number]

    def read(self, index: int) -> bytes:
        """See `StoredFiles`."""
        offset, size = (int(self.table[name][index]) for name in PLACES[1:])
        return self.read_beside(index, offset, size)

    def read_beside(self, index: int, offset: int, size: int) -> bytes:
        """Read a member by the place of its content and its size, or another one of the same key.

        Its header must be right before it and have the key: a shard that was replaced by another
        of the same size would give wrong samples.
        """
        shard, begin = self._shard(index), offset - tarfile.BLOCKSIZE
        try:
            require_regular_file(shard)
            with shard.open("rb") as stream:
                available = os.fstat(stream.fileno()).st_size - offset
                if begin < 0 or not 0 <= size <= available:
                    raise OSError("the shard ends before, or the index is damaged")
                stream.seek(begin)
                self._check_header(index, stream.read(tarfile.BLOCKSIZE))
                return stream.read(size)
        except (OSError, MemoryError, OverflowError, tarfile.TarError) as error:
            reason = str(error) or "too large for the memory"
            raise OSError(f"{self.sample_id(index)}: {reason}; write the index again?") from error

    def _check_header(self, index: int, block: bytes) -> None:
        name = self.names[index]
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        # other names stand in a header of their own, and are cut or changed in this one
        is_plain = name.isascii() and len(name) <= tarfile.LENGTH_NAME
        if is_plain and key_of(header.name) != key_of(name):
            raise OSError(f"the shard has {header.name!r} there, not what the index says")


def table_of_members(shard: Path, members: Iterable[Member], *, kind: str = IMAGE_KIND) -> Table:
    """Make an index of members of a shard: `PLACES`, and names.

    The description holds name and size of the shard.
    """
    listed = [*members]
    arrays: dict[str, NDArray[Any]] = {
        "shard": np.zeros(len(listed), np.int32),
        "offset": np.array([member.offset for member in listed], np.int64),
        "size": np.array([member.size for member in listed], np.int64),
        **Names.collect(member.name for member in listed).arrays(),
    }
    return Table(arrays, [[shard.name, shard.stat().st_size]], kind=kind)


def index_shards(
    shards: Sequence[Path],
    index_shard: ShardIndexer,
    left_out: Findings,
    *,
    kind: str,
    workers: int = 1,
    folder: Path | None = None,
    settings: str = "",
) -> Table:
    """Index shards one by one, by `workers` in memory, or on all cores in a folder for later calls.

    A folder has a file of each shard, which an interruption leaves, and one of all. Their names
    change with paths, sizes and times of the shards and with `settings`, those of `index_shard`:
    only shards that are new or changed are read. `left_out` gains what is left out, or was when the
    index was saved.
    """
    if folder is not None:
        return _index_in_folder(shards, index_shard, left_out, folder, kind=kind, settings=settings)
    tables, shared = list[Table](), (index_shard, left_out.kinds)
    results = ordered_map(
        _index_with_findings, shards, workers=workers, title="shards", chunk=1, shared=shared
    )
    for table, findings in results:
        tables.append(table)
        left_out.merge(findings)
    return _join_tables(tables)


def _index_with_findings(
    index_shard: ShardIndexer, kinds: Mapping[str, Kind], shard: Path
) -> tuple[Table, Findings]:
    findings = Findings(kinds)
    return index_shard(shard, findings), findings


def _index_in_folder(
    shards: Sequence[Path],
    index_shard: ShardIndexer,
    left_out: Findings,
    folder: Path,
    *,
    kind: str,
    settings: str,
) -> Table:
    facts = [shard.stat() for shard in shards]
    names = [
        _name_saved(kind, settings, shard.absolute(), status.st_size, status.st_mtime_ns)
        for shard, status in zip(shards, facts, strict=True)
    ]
    file = folder / _name_saved(*names)
    table = _open_saved(file, kind)
    if table is None:
        logger.info("indexes %d shards once, in %s", len(shards), folder)
        make_folder(folder / "shards")
        most = 1 + sum(status.st_size for status in facts) // _OF_A_WORKER
        parts = [folder / "shards" / name for name in names]
        jobs = [*zip(shards, parts, strict=True)]
        random.Random().shuffle(jobs)  # machines that begin together share the work
        done = ordered_map(
            _index_into_file,
            jobs,
            workers=min(len(os.sched_getaffinity(0)), most),
            title="indexing shards",
            chunk=1,
            shared=(index_shard, left_out.kinds, kind),
        )
        for _ in done:
            pass
        _join_tables([Table.open(part, kind=kind) for part in parts]).save(file)
        table = Table.open(file, kind=kind)
    for problem, count, ids in (problem for part in table.about for problem in part["left_out"]):
        left_out.add_many(problem, count, ids)
    table.about = [shard for part in table.about for shard in part["shards"]]
    return table


def _index_into_file(
    index_shard: ShardIndexer, kinds: Mapping[str, Kind], kind: str, job: tuple[Path, Path]
) -> None:
    """Index a shard in a file, unless that is done."""
    shard, file = job
    if _open_saved(file, kind) is None:
        table, findings = _index_with_findings(index_shard, kinds, shard)
        listed = findings.as_json()
        problems = [[entry["kind"], entry["count"], entry["ids"][:SHOWN]] for entry in listed]
        table.about = [{"shards": table.about, "left_out": problems}]
        table.save(file)


def _join_tables(tables: Sequence[Table]) -> Table:
    """Join the indexes of shards, in which the shards and the ends of names count on."""
    counts = [len(table["shard"]) for table in tables]
    arrays = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    arrays["shard"] += np.repeat(np.arange(len(tables), dtype=np.int32), counts)
    for name in arrays:
        if name.endswith(".ends"):
            sizes = [len(table[f"{name.removesuffix('.ends')}.bytes"]) for table in tables]
            arrays[name] += np.repeat(np.cumsum([0, *sizes[:-1]]), counts)
    about = [part for table in tables for part in table.about]
    return Table(arrays, about, kind=tables[0].kind)


def _open_saved(file: Path, kind: str) -> Table | None:
    """Map an index file; None if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return Table.open(file, kind=kind)
    return None


def _name_saved(*words: Any) -> str:
    content = "\n".join(map(str, words)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(content).hexdigest()[:16] + INDEX_SUFFIX
