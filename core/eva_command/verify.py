"""The command `eva data verify`: check a dataset before training on it."""

import argparse
import functools
import inspect
import io
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.checks.findings import Findings, write_json
from eva_data.files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_files,
    make_folder,
    write_text,
    writing,
)
from eva_runs.commands import check_outputs, complain, exit_code, say
from eva_runs.options import add_check_options

_ABOUT = """\
Check a dataset before training on it, and write a cleaned copy.

    eva data verify PATH                  # finds out what it is
    eva data verify coco --annotations a.json --images folder/ --write cleaned.json
    eva data verify coco --data data.yaml --write cleaned/
    eva data verify folders mine/train --against mine/val
    eva data verify images manifest.toml --write index.safetensors
    eva data verify semantic --images photos/ --maps labels/ --classes classes.toml
    eva data verify video train.csv --root clips/ --against val.csv --write train.txt

Exit code: 0 without problems (notes are not problems), 1 with problems, also when a cleaned file
was written, 2 if the command line or the file cannot be used.
"""
_LISTS = (".csv", ".tsv", ".txt", ".tar", ".parquet", ".safetensors", ".jsonl")
_START = 2**16  # bytes of a JSON file that are looked at
_SHOWN = 30  # classes with their counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a check; where a path stands in place of its name, the one that fits.

    Returns:
        The exit code: that of the check, 2 if the arguments or a file cannot be used, 130 after
        Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] not in _CHECKS and not given[0].startswith("-"):
        try:
            given = guess(given)
        except (ValueError, OSError) as error:
            complain(f"error: {error}")
            return 2
        complain(f"checked as: {shlex.join(given)}")
    args = parse(given)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    return exit_code(lambda: int(args.run(args)))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line that begins with the name of a check.

    The option `run` is a function of all that returns 0 without problems and 1 with some.
    """
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=_ABOUT, formatter_class=shape, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (text, add, run) in _CHECKS.items():
        command = subparsers.add_parser(name, help=text, formatter_class=shape, allow_abbrev=False)
        if name == next(iter(arguments), None):
            command.description = inspect.getdoc(add)
            command.set_defaults(run=run)
            add(command)
    return parser.parse_args(arguments)


def guess(arguments: Sequence[str]) -> list[str]:
    """Put the name of a check in front of the path that a command line begins with."""
    path, rest = Path(arguments[0]), list(arguments[1:])
    if not path.exists():
        raise ValueError(f"{arguments[0]} is neither a check (see --help) nor a file or folder")
    suffix = path.suffix.lower()
    if path.is_dir():
        return [*_check_of_folder(path), *rest]
    if suffix in (".yaml", ".yml"):
        return ["coco", "--data", str(path), *rest]
    if suffix == ".toml":
        return ["images", str(path), *rest]
    if suffix == ".json":
        with path.open("rb") as stream:
            start = stream.read(_START)
        kind = ["captions"] if b'"caption"' in start else ["coco", "--annotations"]
        return [*kind, str(path), *rest]
    if suffix in _LISTS:
        raise ValueError(
            f"{path} may list videos or captions: write `video` or `captions` before it"
        )
    raise ValueError(f"{path}: nothing is known to check in it; see --help")


def _check_of_folder(folder: Path) -> list[str]:
    from eva_data.detection.spec import find_exports
    from eva_data.detection.voc import find_voc
    from eva_data.detection.yolo import find_yaml

    if find_exports(folder) or find_voc(folder) or find_yaml(folder):
        return ["coco", "--data", str(folder)]
    for check, suffixes in (("folders", IMAGE_SUFFIXES), ("video", VIDEO_SUFFIXES)):
        if next(find_files(folder, suffixes), None):
            return [check, str(folder)]
    raise ValueError(f"{folder} holds neither images nor videos, nor a description of them")


def _finish(
    args: argparse.Namespace, findings: Findings, about: Mapping[str, Any], what: str = ""
) -> int:
    """Print and report what was found; return the exit code."""
    result = _shown(findings)
    if what and args.skip_decode:
        say(f"the {what} were only listed: leave out --skip-decode to read them")
    if args.report:
        write_json(args.report, {**about, **result})
    return 1 if findings.problems else 0


def _shown(findings: Findings) -> dict[str, Any]:
    """Print what was found, and return its part of a report."""
    listed = findings.as_json()
    if listed:
        say(findings.table())
    say(findings.summary())
    return {"problems": findings.problems, "findings": listed}


# Objects


def _add_coco(parser: argparse.ArgumentParser) -> None:
    """Check objects: every error that training would raise, and every image.

    The entire file is held in memory, as COCO's own reader does: about 1.1 kB for a box, so 28 GB
    for Objects365 v2. What training refuses is left out of what is written.
    """
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--annotations", type=Path, metavar="JSON", help="file in COCO's format")
    source.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="data.yaml of YOLO, folder of Pascal VOC, or folder of a COCO export, with its images",
    )
    add("--images", type=Path, metavar="DIR", help="image folder of --annotations")
    add("--boxes-only", action="store_true", help="leave masks alone, of the cleaned file too")
    add_check_options(
        parser,
        "images",
        skip="read the headers of images only",
        write=("JSON", "a COCO file without the problems; with --data a folder of such files"),
    )


def _run_coco(args: argparse.Namespace) -> int:
    from eva_data.detection.verify import CheckedPart, check_file, check_parts

    outputs = [args.write, args.report]
    if args.data is not None and args.write:
        make_folder(args.write)
        outputs[0:1] = [args.write / f"{part}.json" for part in ("train", "val", "test")]
    source = {"data to check": args.data or args.annotations}
    check_outputs(outputs, overwrite=args.overwrite, inputs=source)
    parts: Iterator[CheckedPart]
    if args.data is not None:
        parts = check_parts(args.data, boxes_only=args.boxes_only)
    else:
        parts = iter([check_file(args.annotations, args.images, boxes_only=args.boxes_only)])
    reports, failed = dict[str, Any](), False
    for part in parts:
        if part.dataset.folder:
            part.decode_images(workers=args.workers, decode=not args.skip_decode)
        else:
            say("image files were not looked at: give --images FOLDER")
        say(f"{part.name} {part.dataset.describe()}".strip())
        reports[part.name] = _shown(part.findings)
        failed = failed or bool(part.findings.problems)
        if args.write and not part.dataset.images:
            complain(f"nothing was written: no image is left; is {part.dataset.folder} right?")
        elif args.write:
            file = args.write / f"{part.name}.json" if part.name else args.write
            write_json(file, part.cleaned())
            images = f", its images: {part.dataset.folder}" if part.name else ""
            say(f"{file}: {len(part.dataset.objects):,} objects are left{images}")
    if args.report:
        write_json(args.report, reports[""] if args.data is None else reports)
    return int(failed)


# Label maps


def _add_semantic(parser: argparse.ArgumentParser) -> None:
    """Check images and label maps: what training would refuse, and pixels of each class."""
    add = parser.add_argument
    add("--layout", choices=("ade20k", "coco-stuff"), help="a public dataset below --root")
    add("--root", type=Path, metavar="DIR", help="folder of the dataset of --layout")
    add("--images", type=Path, metavar="DIR", help="own images")
    add("--maps", type=Path, metavar="DIR", help="own label maps, of the same names")
    add("--classes", type=Path, metavar="TOML", help="names and labels of own classes")
    add_check_options(
        parser,
        "files",
        skip="read headers of images only, and all of the maps",
        report="findings and counts of all classes",
    )


def _run_semantic(args: argparse.Namespace) -> int:
    from eva_data.checks.label_maps import KINDS, Split, check_split, open_layout
    from eva_data.label_maps import read_class_file

    check_outputs([args.report], overwrite=args.overwrite, inputs={"class file": args.classes})
    public, own = (args.layout, args.root), (args.images, args.maps, args.classes)
    if all(public) and not any(own):
        classes, splits = open_layout(args.layout, args.root)
    elif all(own) and not any(public):
        classes, splits = read_class_file(args.classes), {"own": Split(args.images, args.maps)}
    else:
        raise ValueError("give --layout and --root, or --images, --maps and --classes")
    findings, done = Findings(KINDS), {}
    for name, split in splits.items():
        done[name] = found = check_split(
            split, classes, findings, workers=args.workers, decode=not args.skip_decode
        )
        say(f"{name}: {found['pairs']:,} pairs in {split.images} and {split.maps}")
        total = sum(entry["pixels"] for entry in found["classes"]) or 1
        for entry in found["classes"] if len(found["classes"]) <= _SHOWN else ():
            share = f"{entry['pixels'] / total:7.2%} of the pixels"
            say(f"  {entry['name']}: in {entry['images']:,} maps, {share}")
    return _finish(args, findings, {"splits": done})


# Manifests: images of pre-training, and images with captions


def _add_captions(parser: argparse.ArgumentParser) -> None:
    """Check images with captions, and write an index of the pairs that can be read.

        eva data verify captions "laion/{00000..41455}.tar" --write laion.safetensors
        eva data verify captions pairs.csv --root photos/ --report findings.json

    LOCATION is what training takes: shards, a table, a JSON list, a folder or a manifest. Every
    caption is read and every image decoded. Damaged and missing shards, images without captions
    and what cannot be read are left out of the index, which training opens at once: give it as the
    location, or name it in the manifest.
    """
    add = parser.add_argument
    add("location", metavar="LOCATION", help="shards, table, list, folder or manifest of pairs")
    add("--root", metavar="DIR", help="folder of relative paths")
    add("--image-column", metavar="NAME", help="column or key with the images' paths")
    add("--caption-column", metavar="NAME", help="column or key with the captions")
    _add_manifest_options(parser, "pairs")


def _add_images(parser: argparse.ArgumentParser) -> None:
    """Check the images of pre-training and write the index of a manifest.

    Every image is read and decoded as in training. Those that fail are left out of the index.
    """
    parser.add_argument(
        "location",
        metavar="MANIFEST",
        help="TOML file that lists folders and shards; or a folder, which is only checked",
    )
    parser.add_argument("--root", metavar="DIR", help="folder of relative paths")
    _add_manifest_options(parser, "images")


def _add_manifest_options(parser: argparse.ArgumentParser, what: str) -> None:
    add_check_options(
        parser,
        "images",
        skip=f"list the {what} without reading them",
        write=("INDEX", f"an index of the readable {what}, a .safetensors file"),
    )


def _run_images(args: argparse.Namespace) -> int:
    from eva_data.checks.sources import IMAGE_KINDS
    from eva_data.image_sources import open_source, select
    from eva_data.manifests import Manifest

    if Path(args.location).is_dir():
        if args.write:
            raise ValueError(
                f"{args.location} is a folder: an index, as of --write, belongs to a manifest"
            )
        args.folder, args.against = Path(args.location), None
        return _run_folders(args)
    manifest = Manifest.read(args.location, root=args.root)
    opening = (open_source, open_source, select)
    return _check_sources(args, manifest, Findings(IMAGE_KINDS), opening, "images")


def _run_captions(args: argparse.Namespace) -> int:
    from eva_data.captions.opening import PAIRS, entry_of, open_source
    from eva_data.captions.sources import select
    from eva_data.checks.sources import PAIR_KINDS
    from eva_data.index import INDEX_SUFFIX
    from eva_data.manifests import Manifest, expand_path

    path = expand_path(args.location, "LOCATION")
    options = {key: getattr(args, key) for key in PAIRS.options if getattr(args, key)}
    if path.suffix == INDEX_SUFFIX:
        raise ValueError(f"{path} is an index: name the data that it was written of")
    if args.write and args.write.suffix != INDEX_SUFFIX:
        raise ValueError(f"--write must end in {INDEX_SUFFIX}, got {args.write}")
    if path.suffix == ".toml":
        if others := options.keys() - {"root"}:
            raise ValueError(f"{min(others)} belongs below a source of {path}")
        manifest = Manifest.read(path, root=args.root, form=PAIRS)
    else:
        if "root" in options:
            options["root"] = str(Path(options["root"]).absolute())
        manifest = Manifest(file=path, sources=(entry_of(path, options),), index=None, form=PAIRS)
    first = functools.partial(open_source, workers=args.workers, keep_going=True)
    opening = (first, open_source, select)
    return _check_sources(args, manifest, Findings(PAIR_KINDS), opening, "pairs")


def _check_sources(
    args: argparse.Namespace,
    manifest: Any,
    findings: Findings,
    opening: tuple[Callable[..., Any], ...],
    what: str,
) -> int:
    """Check the sources of a manifest, and write what is asked for; return the exit code.

    `opening` opens a source, opens it by its table, and makes the table of the samples to keep.
    """
    import numpy as np

    from eva_data.checks.sources import read_source
    from eva_data.manifests import write_index

    inputs = {"list": manifest.file if manifest.file.is_file() else None}
    check_outputs((args.write, args.report), overwrite=args.overwrite, inputs=inputs)
    search, reopen, select = opening
    tables, found = dict[str, Any](), dict[str, dict[str, Any]]()
    for entry in manifest.sources:
        try:
            source = search(entry)
        except (OSError, ValueError) as error:
            findings.add("source", entry.name, str(error))
            continue
        if what == "pairs":
            findings.merge(source.left_out)
        keep: Any = np.ones(len(source), bool)
        if not args.skip_decode:
            keep = read_source(entry, source, reopen, findings, workers=args.workers)
        numbers = {what: len(source), "left": int(keep.sum())}
        found[entry.name] = numbers
        say(f"{entry.name}: {', '.join(f'{value:,} {name}' for name, value in numbers.items())}")
        if keep.any():
            tables[entry.name] = select(source.table, keep)
        else:
            findings.add("source", entry.name, f"no sample of it can be read ({what})")
    code = _finish(args, findings, {"location": str(args.location), "sources": found}, what)
    if args.write and findings.count("source"):
        say(f"{args.write} was not written")
    elif args.write:
        write_index(args.write, tables, manifest)
        say(f"{args.write}: index of {sum(one['left'] for one in found.values()):,} {what}")
        noted = manifest.index and manifest.index.absolute() == args.write.absolute()
        if manifest.file.suffix == ".toml" and not noted:
            say(f'to use it, write in {manifest.file}: index = "{args.write.absolute()}"')
    return code


# Folders of images


def _add_folders(parser: argparse.ArgumentParser) -> None:
    """Check folders of images, as they are: of classes, of training and validation, or of nothing.

    Every image is decoded. Folders directly below are classes, unless the only ones are `train` and
    `val` (or `valid`, `test`), which are then compared. Copies are files of the same content.
    """
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of images or of folders of classes")
    add("--against", type=Path, metavar="FOLDER", help="the other part, such as for validation")
    add_check_options(parser, "images", skip="read the headers of images only")


def _run_folders(args: argparse.Namespace) -> int:
    from eva_data.checks.folders import KINDS, check_parts, find_parts, list_part

    check_outputs([args.report], overwrite=args.overwrite, inputs={})
    findings = Findings(KINDS)
    folders = [args.folder] if args.against is None else [args.folder, args.against]
    parts = [list_part(folder, findings) for folder in (find_parts(args.folder) or folders)]
    for part in parts:
        text = f"{part.folder}: {len(part.names):,} images"
        if part.classes:
            counts = [f"{name} {count:,}" for name, count in part.classes.items()]
            more = [f"and {len(counts) - _SHOWN} more"] if len(counts) > _SHOWN else []
            text += f" of {len(counts):,} classes: {', '.join(counts[:_SHOWN] + more)}"
        say(text)
    check_parts(parts, findings, workers=args.workers, decode=not args.skip_decode)
    about = {str(part.folder): part.classes or len(part.names) for part in parts}
    return _finish(args, findings, {"folders": about})


# Videos


def _add_video(parser: argparse.ArgumentParser) -> None:
    """Check videos for action recognition, and write a clean list and an index of them.

    Every video is opened, its frames are counted, and the first, the middle and the last are
    decoded. Those that fail, further copies of one content, and those that --against holds too are
    left out of what is written.
    """
    from eva_data.video.source import BACKENDS

    add = parser.add_argument
    add("location", metavar="LOCATION", help="folder, list, shards or index of labelled videos")
    add("--root", type=Path, metavar="DIR", help="folder of relative paths, or of the ids' files")
    add("--classes", type=Path, metavar="FILE", help="names of the classes, one in each line")
    add("--backend", choices=BACKENDS, default="pyav", help="decoder (default %(default)s)")
    add(
        "--against",
        action="append",
        default=[],
        metavar="OTHER",
        help="list, folder, shards or index whose videos must not be among these: compared by "
        "YouTube id, and by content if they are there or an index is; may be given again",
    )
    add("--index", type=Path, metavar="FILE", help="also write an index, a .safetensors file")
    add("--write-classes", type=Path, metavar="TXT", help="also write the names of the classes")
    add_check_options(
        parser,
        "videos",
        skip="look at names and labels only, and read no video",
        write=("LIST", "a list `path label` of what is left"),
    )


def _run_video(args: argparse.Namespace) -> int:
    import numpy as np

    from eva_data.checks.videos import KINDS, find_in_list, find_leaks, read_videos
    from eva_data.index import INDEX_SUFFIX, state_of
    from eva_data.labelled_videos.opening import open_videos, write_video_index
    from eva_data.labelled_videos.sources import VideoFiles, VideoShards
    from eva_data.tar import is_shard_pattern

    location = Path(args.location)
    inputs = {"list": location if location.is_file() else None, "list of classes": args.classes}
    inputs |= {f"list {other}": Path(other) for other in args.against if Path(other).is_file()}
    outputs = (args.write, args.index, args.write_classes, args.report)
    check_outputs(outputs, overwrite=args.overwrite, inputs=inputs)
    if args.index and args.index.suffix != INDEX_SUFFIX:
        raise ValueError(f"--index must end in {INDEX_SUFFIX}, got {args.index}")
    no_list = location.suffix == INDEX_SUFFIX or is_shard_pattern(location)
    listed_in = location if location.is_file() and not no_list else None
    state = None if listed_in is None else state_of(listed_in)  # before it is read
    videos = open_videos(location, classes=args.classes, root=args.root, backend=args.backend)
    assert isinstance(videos, VideoFiles | VideoShards)
    if args.write and isinstance(videos, VideoShards):
        raise ValueError("shards have no paths for --write: give --index, which lists members")
    findings, keep = Findings(KINDS), np.ones(len(videos), bool)
    for kind, names in (("missing", videos.missing), ("unlisted", videos.unlisted)):
        findings.add_many(kind, len(names), iter(names))
    find_in_list(videos, findings, keep)
    facts: dict[str, Any] = {}
    if not args.skip_decode:
        facts = read_videos(videos, findings, keep, workers=args.workers)
    for other in args.against:
        find_leaks(videos, facts, other, findings, keep, classes=args.classes)
    code = _finish(args, findings, _about_videos(args.location, videos, keep, facts), "videos")
    if not keep.any():
        say("no video is left, and nothing else was written")
        return 1
    if args.write:
        _write_list(args.write, videos, keep)
    if args.index:
        kept = np.flatnonzero(keep).tolist()
        write_video_index(args.index, videos, kept, facts, listed_in=listed_in, state=state)
        say(f"{args.index}: index of {int(keep.sum()):,} videos")
    if args.write_classes:
        write_text(args.write_classes, "".join(f"{name}\n" for name in videos.classes))
    elif args.write and not all(map(str.isdecimal, videos.classes)):
        say(f"{args.write} has numbers for its classes: --write-classes TXT keeps their names")
    return code


def _about_videos(location: str, videos: Any, keep: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """Print and return the numbers of videos, of all and of those that are left."""
    import numpy as np

    counts = np.bincount(videos.labels, minlength=len(videos.classes)).tolist()
    left = np.bincount(videos.labels[keep], minlength=len(videos.classes)).tolist()
    say(
        f"{len(videos):,} videos in {len(counts):,} classes, {min(counts):,} to {max(counts):,} in "
        f"each, median {np.median(counts):g}; {int(keep.sum()):,} are left"
    )
    totals = {name: int(facts[name][keep].sum()) for name in ("frames", "bytes") if facts}
    if totals:
        say(f"they have {totals['frames']:,} frames in {totals['bytes']:,} bytes")
    rows = zip(videos.classes, counts, left, strict=True)
    classes = {name: {"videos": count, "left": kept} for name, count, kept in rows}
    numbers = {"videos": len(videos), "left_by_cleaning": int(keep.sum()), **totals}
    return {"location": location, **numbers, "classes": classes}


def _write_list(file: Path, videos: Any, keep: Any) -> None:
    """Write what is left with paths below the list's folder, or else with full ones."""
    from eva_data.labelled_videos.lists import list_line

    root, folder = videos.root.absolute(), file.parent.absolute()
    below = root.is_relative_to(folder)
    lines = []
    for index in keep.nonzero()[0].tolist():
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


_CHECKS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[..., int]]] = {
    "captions": ("images with captions, and their index", _add_captions, _run_captions),
    "coco": ("objects of COCO, LVIS, YOLO or Pascal VOC, and a clean file", _add_coco, _run_coco),
    "folders": ("folders of images, of classes or without", _add_folders, _run_folders),
    "images": ("the images of pre-training, and their index", _add_images, _run_images),
    "semantic": ("images and maps for semantic segmentation", _add_semantic, _run_semantic),
    "video": ("videos for action recognition, and their clean list", _add_video, _run_video),
}
