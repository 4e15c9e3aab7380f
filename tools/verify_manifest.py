"""Checks the images of pre-training and writes the index of a manifest.

    python tools/verify_data.py images pretrain/configs/merged30m.toml --write merged30m.safetensors

Every image is read and decoded as in training. Those that fail are left out of the index.
"""

import argparse
import functools
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from findings import Findings, Kind, progress, write_json

from eva_data.names import Names
from eva_data.pictures import UnreadableImageError
from eva_data.sources.image_source import FolderImages, ImageSource
from eva_data.sources.index_file import Table
from eva_data.sources.manifests import Manifest, SourceEntry, write_index
from eva_data.sources.shards import TarShards

KINDS = {
    "source": Kind("source that cannot be used", "no index is written"),
    "unreadable": Kind("image that cannot be read", "left out of the index"),
    "small": Kind("image with a side below --least-side", "kept", note=True),
}
BLOCK = 512  # images that a process checks at once
Problem = tuple[int, str, str]  # index, kind, detail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST", help="TOML file that lists folders and shards")
    add("--root", metavar="DIR", help="folder of relative paths, instead of the manifest's")
    add("--write", type=Path, metavar="INDEX", help="also write an index of the readable images")
    add("--report", type=Path, metavar="JSON", help="also write the findings, with more ids")
    add("--overwrite", action="store_true", help="replace earlier --write and --report files")
    add("--skip-decode", action="store_true", help="list the images without reading them")
    add(
        "--least-side",
        type=_from_one,
        default=32,
        metavar="PX",
        help="below which an image is noted as small (default %(default)s)",
    )
    add(
        "--workers",
        type=_from_one,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that decode images (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Check, print, write; returns the exit code: 0 without problems, 1 with.

    Raises:
        FileNotFoundError: If there is no such manifest.
        ValueError: If it is wrong, or a file is in the way.
    """
    manifest = Manifest.read(args.manifest, root=args.root)
    _check_outputs(args)
    findings = Findings(KINDS)
    found: dict[str, int] = {}
    tables: dict[str, Table] = {}
    for entry in manifest.sources:
        try:
            source = entry.open()
        except (OSError, ValueError) as error:
            findings.add("source", entry.name, str(error))
            continue
        found[entry.name] = len(source)
        keep = np.ones(len(source), bool)
        if not args.skip_decode:
            keep = _readable(entry, source, findings, args)
        if keep.any():
            tables[entry.name] = _table(source, keep)
        else:
            findings.add("source", entry.name, "no image of it can be read")
    left = {name: len(Names(table)) for name, table in tables.items()}
    for name, count in found.items():
        print(f"{name}: {count:,} images, {left.get(name, 0):,} of them for the index")
    _report(args, findings, found, left)
    if args.write and findings.count("source"):
        print(f"{args.write} was not written")
    elif args.write:
        write_index(args.write, tables, manifest)
        print(f"{args.write}: index of {sum(left.values()):,} images")
        if manifest.index is None or manifest.index.absolute() != args.write.absolute():
            print(f'to use it, write in {args.manifest}: index = "{args.write.absolute()}"')
    return 1 if findings.problems else 0


def _readable(
    entry: SourceEntry, source: ImageSource, findings: Findings, args: argparse.Namespace
) -> np.ndarray:
    """Which images decode."""
    keep = np.ones(len(source), bool)
    with tempfile.TemporaryDirectory() as folder:
        if args.workers > 1:  # which then map the names from a file
            file = Path(folder) / "source"
            _table(source, keep).save(file)
            source = entry.open(Table.open(file))
        for index, kind, detail in _check_all(source, args.workers, args.least_side, entry.name):
            findings.add(kind, source.sample_id(index), detail)
            keep[index] &= KINDS[kind].note
    return keep


def _check_all(source: ImageSource, workers: int, side: int, name: str) -> Iterator[Problem]:
    block = max(1, min(BLOCK, len(source) // (4 * workers)))
    blocks = [range(i, min(i + block, len(source))) for i in range(0, len(source), block)]
    check = functools.partial(_check, least_side=side)
    if workers == 1:
        _begin(source)
        yield from _flat(progress(map(check, blocks), total=len(blocks), what=name))
        return
    # Not fork: the caller may hold threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin_worker, initargs=(source,)
    )
    try:
        yield from _flat(progress(pool.map(check, blocks), total=len(blocks), what=name))
    except BrokenProcessPool as error:
        raise ValueError(
            f"one of {workers} processes that decode images died, perhaps for lack of memory; "
            "give fewer --workers, or --skip-decode"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _flat(blocks: Iterable[list[Problem]]) -> Iterator[Problem]:
    for problems in blocks:
        yield from problems


_source: ImageSource  # of this process


def _begin(source: ImageSource) -> None:
    global _source
    _source = source


def _begin_worker(source: ImageSource) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends the workers
    torch.set_num_threads(1)
    _begin(source)


def _check(indices: range, *, least_side: int) -> list[Problem]:
    problems = []
    for index in indices:
        try:
            height, width = _source.decode(index).shape[-2:]
        except UnreadableImageError as error:
            detail = str(error).removeprefix(_source.sample_id(index)).lstrip(": ")
            problems.append((index, "unreadable", detail))
            continue
        if min(height, width) < least_side:
            problems.append((index, "small", f"{width} x {height} px"))
    return problems


def _table(source: ImageSource, keep: np.ndarray) -> Table:
    """What the index says of a source."""
    assert isinstance(source, FolderImages | TarShards)
    shards = source.index() if isinstance(source, TarShards) else None
    names = source.names if shards is None else Names(shards)
    if not keep.all():
        names = Names.collect(names[int(index)] for index in np.flatnonzero(keep))
    if shards is None:
        return Table(names.arrays("names"))
    places = {key: shards[key][keep] for key in ("shard", "offset", "size")}
    return Table(places | names.arrays("names"), shards.about)


def _report(
    args: argparse.Namespace, findings: Findings, found: dict[str, int], left: dict[str, int]
) -> None:
    listed = findings.as_json()
    print(findings.table() if listed else "no problem")
    if args.skip_decode:
        print("the images were only listed: leave out --skip-decode to read them")
    if args.report:
        about = {"manifest": str(args.manifest), "problems": findings.problems}
        counts = {"images": found, "left_by_cleaning": left}
        write_json(args.report, about | counts | {"findings": listed})


def _from_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return value


def _check_outputs(args: argparse.Namespace) -> None:
    outputs = [path for path in (args.write, args.report) if path]
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ValueError("--write and --report are the same file")
    for path in outputs:
        if path.resolve() == args.manifest.resolve():
            raise ValueError(f"{path} is the manifest: it is never overwritten, name another file")
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"{path} is no place for a file: name one in an existing folder")
        if path.exists() and not args.overwrite:
            raise ValueError(f"{path} is there already: give --overwrite")
