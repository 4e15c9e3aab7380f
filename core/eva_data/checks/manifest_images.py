"""The images of a manifest, read and decoded as in training; the index of those that can be."""

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from eva_data.checks.blocks import check_blocks
from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.image_sources import FolderImages, ImageSource, ShardImages, open_source, select
from eva_data.images import UnreadableImageError
from eva_data.index import Names, Table
from eva_data.manifests import Manifest, SourceEntry, write_index
from eva_runs.commands import check_outputs, say

KINDS = {
    "source": Kind("source that cannot be used", "no index is written"),
    "unreadable": Kind("image that cannot be read", "left out of the index"),
    "small": Kind("image with a side below --least-side", "kept", note=True),
}
Problem = tuple[int, str, str]  # index, kind, detail
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def check_manifest(args: argparse.Namespace) -> int:
    """Check the images of a manifest, and write what is asked for.

    Args:
        args: Options of `eva_data.checks.manifests`.

    Returns:
        The exit code: 0 without problems, 1 with some.

    Raises:
        ValueError: If manifest or outputs cannot be used.
    """
    manifest = Manifest.read(args.manifest, root=args.root)
    check_outputs(
        (args.write, args.report), overwrite=args.overwrite, inputs={"manifest": args.manifest}
    )
    findings = Findings(KINDS)
    found: dict[str, int] = {}
    tables: dict[str, Table] = {}
    for entry in manifest.sources:
        try:
            source = open_source(entry)
        except (OSError, ValueError) as error:
            findings.add("source", entry.name, str(error))
            continue
        found[entry.name] = len(source)
        keep = np.ones(len(source), bool)
        if not args.skip_decode:
            keep = _readable(entry, source, findings, args)
        if keep.any():
            tables[entry.name] = select(source, np.flatnonzero(keep).tolist())
        else:
            findings.add("source", entry.name, "no image of it can be read")
    left = {name: len(Names(table)) for name, table in tables.items()}
    for name, count in found.items():
        say(f"{name}: {count:,} images, {left.get(name, 0):,} of them for the index")
    _report(args, findings, found, left)
    if args.write and findings.count("source"):
        say(f"{args.write} was not written")
    elif args.write:
        write_index(args.write, tables, manifest)
        say(f"{args.write}: index of {sum(left.values()):,} images")
        if manifest.index is None or manifest.index.absolute() != args.write.absolute():
            say(f'to use it, write in {args.manifest}: index = "{args.write.absolute()}"')
    return 1 if findings.problems else 0


def _readable(
    entry: SourceEntry,
    source: FolderImages | ShardImages,
    findings: Findings,
    args: argparse.Namespace,
) -> Mask:
    """Find out which images decode: (number of images,), bool."""
    keep = np.ones(len(source), bool)
    with tempfile.TemporaryDirectory() as folder:
        if args.workers > 1:  # which then map the names from a file
            file = Path(folder) / "source"
            source.table.save(file)
            source = open_source(entry, Table.open(file))
        look = functools.partial(_check, least_side=args.least_side)
        for problems in check_blocks(source, look, workers=args.workers, what=entry.name):
            for index, kind, detail in problems:
                findings.add(kind, source.sample_id(index), detail)
                keep[index] &= KINDS[kind].note
    return keep


def _check(source: ImageSource, indices: range, *, least_side: int) -> list[Problem]:
    problems = []
    for index in indices:
        try:
            height, width = source.decode(index).shape[-2:]
        except UnreadableImageError as error:
            detail = str(error).removeprefix(source.sample_id(index)).lstrip(": ")
            problems.append((index, "unreadable", detail))
            continue
        if min(height, width) < least_side:
            problems.append((index, "small", f"{width} x {height} px"))
    return problems


def _report(
    args: argparse.Namespace, findings: Findings, found: dict[str, int], left: dict[str, int]
) -> None:
    listed = findings.as_json()
    say(findings.table() if listed else "no problem")
    if args.skip_decode:
        say("the images were only listed: leave out --skip-decode to read them")
    if args.report:
        about = {"manifest": str(args.manifest), "problems": findings.problems}
        counts = {"images": found, "left_by_cleaning": left}
        write_json(args.report, about | counts | {"findings": listed})
