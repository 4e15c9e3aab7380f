r"""Check videos for action recognition, and write a clean list and an index of them.

    python tools/verify_data.py video kinetics400/train.csv --root kinetics400/train \
        --against kinetics400/val.csv --write train.txt --index train.safetensors

Every video is opened, its frames are counted, and the first, the middle and the last are decoded.
Those that fail, further copies of one content, and those that --against holds too are left out of
what is written.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.checks.command import add_shared
from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.checks.video_facts import read_facts
from eva_data.checks.video_sets import Mask, find_copies, find_ids, find_leaks, find_rare_classes
from eva_data.files import write_text, writing
from eva_data.index import INDEX_SUFFIX, state_of
from eva_data.labelled_videos.lists import list_line
from eva_data.labelled_videos.opening import SHA256, open_videos, write_video_index
from eva_data.labelled_videos.sources import VideoFiles, VideoShards
from eva_data.tar import is_shard_pattern
from eva_data.video.source import BACKENDS
from eva_runs.commands import check_outputs, say
from eva_runs.options import integer

_OUT = "left out"
_FIRST = "left out but the first"
KINDS = {
    "missing": Kind("video that is listed and not there", _OUT),
    "unreadable": Kind("video that cannot be read", _OUT),
    "sound": Kind("file without pictures", _OUT),
    "died": Kind("video on which a process died", _OUT),
    "twice": Kind("video that is listed again", _FIRST),
    "relabelled": Kind("video that is listed again, with another label", _FIRST),
    "copy": Kind("video with the content of another", _FIRST),
    "relabelled_copy": Kind("video with the content of another, of another class", _FIRST),
    "leak": Kind("video that --against holds too", _OUT),
    "two_classes": Kind("YouTube id that two classes have", "kept"),
    "same_id": Kind("YouTube id that comes again in its class", "kept", note=True),
    "short": Kind("video of fewer frames than --least-frames", "kept", note=True),
    "odd_size": Kind("frames of an unusual size", "kept", note=True),
    "rotated": Kind("video that is stored turned", "kept", note=True),
    "unlisted": Kind("video that is there and not listed, or has no label", "kept", note=True),
    "empty": Kind("class without a video", "kept", note=True),
    "rare": Kind("class with less than a tenth of the median", "kept", note=True),
}
_SIDES = 64, 4096  # usual sides in pixels
_ASPECT = 4  # most usual ratio of the sides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("location", metavar="LOCATION", help="folder, list, shards or index of labelled videos")
    add("--root", type=Path, metavar="DIR", help="folder of relative paths, or of the ids' files")
    add("--classes", type=Path, metavar="FILE", help="names of the classes, one in each line")
    add("--backend", choices=BACKENDS, default="pyav", help="decoder (default %(default)s)")
    add(
        "--least-frames",
        type=integer(1),
        default=8,
        metavar="N",
        help="below which a video is noted as short (default %(default)s)",
    )
    add(
        "--against",
        action="append",
        default=[],
        metavar="OTHER",
        help="list, folder, shards or index whose videos must not be among these: compared by "
        "YouTube id, and by content if they are there or an index is; may be given again",
    )
    add("--index", type=Path, metavar="FILE", help=f"also write an index, a {INDEX_SUFFIX} file")
    add("--write-classes", type=Path, metavar="TXT", help="also write the names of the classes")
    add_shared(
        parser,
        "videos",
        skip="look at names and labels only, and read no video",
        write=("LIST", "a list `path label` of what is left"),
    )


def _run(args: argparse.Namespace) -> int:
    location = Path(args.location)
    is_list = (
        location.is_file() and location.suffix != INDEX_SUFFIX and not is_shard_pattern(location)
    )
    listed_in = location if is_list else None
    state = state_of(location) if is_list else None  # before it is read
    videos = _open(args)
    findings = Findings(KINDS)
    for kind, names in (("missing", videos.missing), ("unlisted", videos.unlisted)):
        findings.add_many(kind, len(names), iter(names))
    find_rare_classes(videos, findings)
    keep = np.ones(len(videos), bool)
    find_ids(videos, findings, keep)
    facts: dict[str, NDArray[Any]] = {}
    if not args.skip_decode:
        facts = _read(videos, findings, keep, args)
        find_copies(videos, facts["sha256"], findings, keep)
    for other in args.against:
        find_leaks(videos, facts, other, findings, keep, classes=args.classes)
    _report(args, videos, findings, keep, facts)
    if not keep.any():
        say("no video is left, and nothing else was written")
        return 1
    if args.write:
        _write_list(args.write, videos, keep)
    if args.index:
        write_video_index(
            args.index, videos, np.flatnonzero(keep).tolist(), facts,
            listed_in=listed_in, state=state,
        )  # fmt: skip
        say(f"{args.index}: index of {int(keep.sum()):,} videos")
    if args.write_classes:
        write_text(args.write_classes, "".join(f"{name}\n" for name in videos.classes))
    elif args.write and not all(map(str.isdecimal, videos.classes)):
        say(f"{args.write} has numbers for its classes: --write-classes TXT keeps their names")
    return 1 if findings.problems else 0


def _open(args: argparse.Namespace) -> VideoFiles | VideoShards:
    location = Path(args.location)
    inputs = {"list": location if location.is_file() else None, "list of classes": args.classes}
    inputs |= {f"list {other}": Path(other) for other in args.against if Path(other).is_file()}
    outputs = (args.write, args.index, args.write_classes, args.report)
    check_outputs(outputs, overwrite=args.overwrite, inputs=inputs)
    if args.index and args.index.suffix != INDEX_SUFFIX:
        raise ValueError(f"--index must end in {INDEX_SUFFIX}, got {args.index}")
    videos = open_videos(location, classes=args.classes, root=args.root, backend=args.backend)
    assert isinstance(videos, VideoFiles | VideoShards)
    if args.write and isinstance(videos, VideoShards):
        raise ValueError("shards have no paths for --write: give --index, which lists members")
    return videos


def _read(
    videos: VideoFiles | VideoShards, findings: Findings, keep: Mask, args: argparse.Namespace
) -> dict[str, NDArray[Any]]:
    """Read the videos that are kept so far, and keep those of them that can be read."""
    number = len(videos)
    facts: dict[str, NDArray[Any]] = {
        "frames": np.zeros(number, np.int32),
        "bytes": np.zeros(number, np.int64),
        "height": np.zeros(number, np.int32),
        "width": np.zeros(number, np.int32),
        "sha256": np.zeros((number, SHA256), np.uint8),
    }
    places = np.flatnonzero(keep).tolist()
    for index, found in zip(places, read_facts(videos, places, workers=args.workers), strict=True):
        name = videos.name(index)
        if found.problem:
            findings.add(found.problem, name, found.detail)
            keep[index] = False
            continue
        facts["frames"][index], facts["bytes"][index] = found.frames, found.length
        facts["height"][index], facts["width"][index] = found.size
        facts["sha256"][index] = np.frombuffer(found.sha256, np.uint8)
        small, large = sorted(found.size)
        if found.frames < args.least_frames:
            findings.add("short", name, f"{found.frames} frames")
        if small < _SIDES[0] or large > _SIDES[1] or large > _ASPECT * small:
            findings.add("odd_size", name, f"{found.size[1]} x {found.size[0]} px")
        if found.rotation:
            findings.add("rotated", name, f"by {found.rotation} degrees")
    return facts


def _write_list(file: Path, videos: VideoFiles | VideoShards, keep: Mask) -> None:
    """Write what is left with paths below the list's folder, or else with full ones."""
    assert isinstance(videos, VideoFiles)
    root, folder = videos.root.absolute(), file.parent.absolute()
    below = root.is_relative_to(folder)
    lines = []
    for index in np.flatnonzero(keep).tolist():
        path = root / videos.name(index)
        text = str(path.relative_to(folder) if below and path.is_relative_to(folder) else path)
        line = list_line(text, int(videos.labels[index]))
        if line is None:
            say(f"{text!r} cannot be written in a list: rename it, or give --index")
            continue
        lines.append(line)
    with writing(file) as stream:  # names need not be text
        stream.writelines(f"{line}\n".encode("utf-8", "surrogateescape") for line in lines)
    say(f"{file}: list of {len(lines):,} videos, with {'relative' if below else 'full'} paths")


def _report(
    args: argparse.Namespace,
    videos: VideoFiles | VideoShards,
    findings: Findings,
    keep: Mask,
    facts: dict[str, NDArray[Any]],
) -> None:
    counts = np.bincount(videos.labels, minlength=len(videos.classes))
    left = np.bincount(videos.labels[keep], minlength=len(videos.classes))
    say(
        f"{len(videos):,} videos in {len(videos.classes):,} classes, {counts.min():,} to "
        f"{counts.max():,} in each, median {np.median(counts):g}; {int(keep.sum()):,} are left"
    )
    totals = {}
    if facts:
        totals = {
            "frames": int(facts["frames"][keep].sum()),
            "bytes": int(facts["bytes"][keep].sum()),
        }
        say(f"they have {totals['frames']:,} frames in {totals['bytes']:,} bytes")
    listed = findings.as_json()
    say(findings.table() if listed else "no problem")
    if args.skip_decode:
        say("the videos were only listed: leave out --skip-decode to read them")
    if args.report:
        about = {"location": args.location, "problems": findings.problems}
        numbers = {"videos": len(videos), "left_by_cleaning": int(keep.sum()), **totals}
        classes = {
            name: {"videos": int(count), "left": int(kept)}
            for name, count, kept in zip(videos.classes, counts, left, strict=True)
        }
        write_json(args.report, about | numbers | {"classes": classes, "findings": listed})
