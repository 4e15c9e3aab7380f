r"""Check pictures with captions, and write an index of the pairs that can be read.

    python tools/verify_data.py captions "laion/{00000..41455}.tar" --write laion.safetensors
    python tools/verify_data.py captions pairs.csv --root photos/ --report findings.json

LOCATION is what training takes: shards, a table, a JSON list, a folder or a manifest. Every caption
is read and every picture decoded. Damaged and missing shards, pictures without captions and what
cannot be read are left out of the index, which training opens at once: give it as the location, or
name it in the manifest.
"""

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.captions.lists import LEFT_OUT
from eva_data.captions.opening import PAIRS, entry_of, open_source
from eva_data.captions.sources import SourceCaptions, select
from eva_data.checks.blocks import check_blocks
from eva_data.checks.caption_facts import Mask, find_copies, look_at
from eva_data.checks.command import add_shared
from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.index import CAPTION_KIND, INDEX_SUFFIX, Table
from eva_data.manifests import Manifest, SourceEntry, expand_path, write_index
from eva_runs.commands import check_outputs, say
from eva_runs.options import integer

_OUT = "left out"
KINDS = {
    "source": Kind("source that cannot be used", "no index is written"),
    **{name: Kind(text, _OUT) for name, text in LEFT_OUT.items()},
    "caption": Kind("caption that cannot be read", _OUT),
    "unreadable": Kind("picture that cannot be read", _OUT),
    "twice": Kind("pair with the picture and the caption of another", "left out but the first"),
    "copy": Kind("picture with the content of another, other caption", "kept", note=True),
    "same_caption": Kind("caption that another picture has too", "kept", note=True),
    "wordy": Kind("caption of more than --most-words words, which may be cut", "kept", note=True),
    "small": Kind("picture with a side below --least-side", "kept", note=True),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("location", metavar="LOCATION", help="shards, table, list, folder or manifest of pairs")
    add("--root", metavar="DIR", help="folder of relative paths")
    add("--image-column", metavar="NAME", help="column or key with the pictures' paths")
    add("--caption-column", metavar="NAME", help="column or key with the captions")
    add(
        "--least-side",
        type=integer(1),
        default=32,
        metavar="PX",
        help="below which a picture is noted as small (default %(default)s)",
    )
    add(
        "--most-words",
        type=integer(1),
        default=55,
        metavar="N",
        help="above which a caption is noted; 77 tokens are about 55 words (default %(default)s)",
    )
    add_shared(
        parser,
        "pictures",
        skip="list the pairs without reading them",
        write=("INDEX", f"an index of the readable pairs, a {INDEX_SUFFIX} file"),
    )


def _run(args: argparse.Namespace) -> int:
    manifest = _manifest(args)
    inputs = {"list": manifest.file if manifest.file.is_file() else None}
    check_outputs((args.write, args.report), overwrite=args.overwrite, inputs=inputs)
    if args.write and args.write.suffix != INDEX_SUFFIX:
        raise ValueError(f"--write must end in {INDEX_SUFFIX}, got {args.write}")
    findings = Findings(KINDS)
    found: dict[str, dict[str, Any]] = {}
    tables: dict[str, Table] = {}
    for entry in manifest.sources:
        try:
            source = open_source(entry, workers=args.workers, keep_going=True)
        except (OSError, ValueError) as error:
            findings.add("source", entry.name, str(error))
            continue
        for kind, count in source.left_out.counts.items():
            findings.add_many(kind, count, source.left_out.names[kind])
        keep, numbers = np.ones(len(source), bool), dict[str, Any]()
        if not args.skip_decode:
            numbers = _read(entry, source, findings, keep, args)
        found[entry.name] = {"pairs": len(source), "left": int(keep.sum()), **numbers}
        if keep.any():
            tables[entry.name] = source.table if keep.all() else select(source.table, keep)
        else:
            findings.add("source", entry.name, "no pair of it can be read")
    _report(args, findings, found)
    if args.write and findings.count("source"):
        say(f"{args.write} was not written")
    elif args.write:
        write_index(args.write, tables, manifest)
        left = sum(numbers["left"] for numbers in found.values())
        say(f"{args.write}: index of {left:,} pairs")
        if manifest.file.suffix == ".toml" and manifest.index != args.write:
            say(f'to use it, write in {manifest.file}: index = "{args.write.absolute()}"')
    return 1 if findings.problems else 0


def _manifest(args: argparse.Namespace) -> Manifest:
    """Read a manifest, or make one of a single source."""
    path = expand_path(args.location, "LOCATION")
    if path.suffix == ".toml":
        for name in ("image_column", "caption_column"):
            if getattr(args, name):
                raise ValueError(f"{name} belongs below a source of {path}")
        return Manifest.read(path, root=args.root, form=PAIRS)
    if path.suffix == INDEX_SUFFIX:
        raise ValueError(f"{path} is an index: name the data that it was written of")
    options = {name: getattr(args, name) for name in PAIRS.options if getattr(args, name)}
    if "root" in options:
        options["root"] = str(Path(options["root"]).absolute())
    return Manifest(file=path, sources=(entry_of(path, options),), index=None, form=PAIRS)


def _read(
    entry: SourceEntry,
    source: SourceCaptions,
    findings: Findings,
    keep: Mask,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Read all pairs of a source, and keep those that can be read; give numbers about them."""
    pictures: NDArray[np.uint64] = np.zeros(len(source), np.uint64)
    captions, words, begin = np.zeros(len(source), np.uint64), list[NDArray[np.int32]](), 0
    look = functools.partial(look_at, least_side=args.least_side, most_words=args.most_words)
    with tempfile.TemporaryDirectory() as folder:
        if args.workers > 1:  # which then map the table from a file
            Table({**source.table}, source.table.about, kind=CAPTION_KIND).save(
                file := Path(folder) / "source"
            )
            source = open_source(entry, Table.open(file, kind=CAPTION_KIND))
        for block in check_blocks(source, look, workers=args.workers, what=entry.name):
            for index, kind, detail in block.problems:
                findings.add(kind, source.sample_id(index), detail)
                keep[index] &= KINDS[kind].note
            end = begin + len(block.pictures)
            pictures[begin:end], captions[begin:end] = block.pictures, block.captions
            words.append(np.array(block.words, np.int32))
            begin = end
        find_copies(source, pictures, captions, findings, keep)
    lengths = np.concatenate(words)
    if not len(lengths):
        return {}
    return {
        "captions": len(lengths),
        "median_words": float(np.median(lengths)),
        "most_words": int(lengths.max()),
        "distinct_captions": len(np.unique(captions[keep])),
    }


def _report(args: argparse.Namespace, findings: Findings, found: dict[str, dict[str, Any]]) -> None:
    for name, numbers in found.items():
        text = f"{name}: {numbers['pairs']:,} pairs, {numbers['left']:,} of them are left"
        if "captions" in numbers:
            text += (
                f"; {numbers['captions']:,} captions of {numbers['median_words']:g} words "
                f"(median) and at most {numbers['most_words']:,}"
            )
        say(text)
    listed = findings.as_json()
    say(findings.table() if listed else "no problem")
    if args.skip_decode:
        say("the pairs were only listed: leave out --skip-decode to read them")
    if args.report:
        about = {"location": args.location, "problems": findings.problems}
        write_json(args.report, about | {"sources": found, "findings": listed})
