"""The checks of `eva data verify`: each takes the options, says what it finds, and writes files.

They return 0 without problems, and 1 with some.
"""

import argparse
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eva_data import image_sources
from eva_data.captions.sources import PAIRS, open_source
from eva_data.checks import images as class_folders, label_maps
from eva_data.checks.findings import Findings, write_json
from eva_data.checks.images import IMAGE_KINDS, PAIR_KINDS, read_source
from eva_data.checks.videos import KINDS, find_in_list, find_leaks, read_videos
from eva_data.classes import folded
from eva_data.detection import verify
from eva_data.index import INDEX_SUFFIX, FolderFiles, state_of
from eva_data.label_files import render_template
from eva_data.label_maps import find_classes, read_class_file
from eva_data.labelled_videos.index import write_video_index
from eva_data.labelled_videos.lists import list_line
from eva_data.labelled_videos.sources import open_videos
from eva_data.manifests import Manifest, entry_of, expand_path, write_index
from eva_data.saving import make_folder, open_atomic, write_text
from eva_data.tar import shard_pattern
from eva_report.terminal import counted
from eva_runs.commands import Result, check_outputs, echo
from eva_runs.errors import print_error

_SHOWN = 30  # classes with their counts


def _finish(args: argparse.Namespace, findings: Findings, about: Mapping[str, Any]) -> int:
    """Print and report what was found; return the exit code."""
    result = {**about, **_shown(findings)}
    if args.report:
        write_json(args.report, result)
    return Result(result, int(findings.problems > 0))


def _shown(findings: Findings) -> dict[str, Any]:
    """Print what was found, and return its part of a report."""
    listed = findings.as_json()
    if listed:
        echo(findings.table())
    echo(findings.summary())
    return {"problems": findings.problems, "findings": listed}


def _run_coco(args: argparse.Namespace) -> int:
    outputs = [args.write, args.report]
    if args.data is not None and args.write:
        make_folder(args.write)
        outputs[0:1] = [args.write / f"{part}.json" for part in ("train", "val", "test")]
    source = {"data to check": args.data or args.annotations}
    check_outputs(outputs, overwrite=args.overwrite, inputs=source)
    parts: Iterable[verify.CheckedPart]
    if args.data is not None:
        parts = verify.check_parts(args.data, boxes_only=args.boxes_only)
    else:
        parts = [verify.check_file(args.annotations, args.images, boxes_only=args.boxes_only)]
    reports, failed, train = dict[str, Any](), False, None
    for part in parts:
        if not args.allow_empty_classes:
            part.check_classes(train if part.name != "train" else None)
        part.check_masks()
        if train is not None and part.name == "val":
            part.check_fits(train)
        train = part.dataset if part.name == "train" else train
        if part.dataset.folder:
            part.decode_images(workers=args.workers, decode=not args.skip_decode, bands=args.bands)
            part.check_segments(workers=args.workers)
        else:
            echo("image files were not looked at: give --images FOLDER")
        echo(f"{part.name} {part.dataset.describe()}".strip())
        reports[part.name] = _shown(part.findings)
        failed = failed or bool(part.findings.problems)
        if args.write and not part.dataset.images:
            print_error(f"nothing was written: no image is left; is {part.dataset.folder} right?")
        elif args.write:
            file = args.write / f"{part.name}.json" if part.name else args.write
            part.copy_segments(file.with_suffix(""))
            write_json(file, part.cleaned())
            images = f", its images: {part.dataset.folder}" if part.name else ""
            echo(f"{file}: {len(part.dataset.objects):,} objects are left{images}")
    dataset = reports[""] if args.data is None else reports
    if args.report:
        write_json(args.report, dataset)
    return Result(dataset, int(failed))


def _run_semantic(args: argparse.Namespace) -> int:
    check_outputs([args.report], overwrite=args.overwrite, inputs={"class file": args.classes})
    public, own = (args.layout, args.root), (args.images, args.maps)
    others, file = (args.val_images, args.val_maps), args.classes
    if all(public) and not any((*own, *others, file)):
        classes, splits = label_maps.open_layout(args.layout, args.root)
    elif all(own) and not any(public) and all(others) == any(others):
        splits = {"train" if any(others) else "own": label_maps.Split(*own)}
        splits |= {"val": label_maps.Split(*others)} if any(others) else {}
        file, classes = (file, read_class_file(file)) if file else find_classes(splits.values())
        if not file.exists():
            content = render_template("classes.toml", classes=classes.rows)
            echo(f"{file} is not there; training will write it:\n{content}")
    else:
        raise ValueError("give --layout and --root, or --images and --maps, also with --val-")
    findings, done = Findings(label_maps.KINDS), {}
    for name, split in splits.items():
        done[name] = checked = label_maps.check_split(
            split,
            classes,
            findings,
            workers=args.workers,
            decode=not args.skip_decode,
            file=file,
            may_lack=args.allow_empty_classes or name == "val",
            bands=args.bands,
        )
        echo(f"{name}: {checked['pairs']:,} pairs in {split.images} and {split.maps}")
        total = sum(entry["pixels"] for entry in checked["classes"]) or 1
        for entry in checked["classes"] if len(checked["classes"]) <= _SHOWN else ():
            share = f"{entry['pixels'] / total:7.2%} of the pixels"
            echo(f"  {entry['name']}: in {entry['images']:,} maps, {share}")
    return _finish(args, findings, {"splits": done})


def _run_images(args: argparse.Namespace) -> int:
    if Path(args.location).is_dir():
        if args.write:
            raise ValueError(f"{args.location} is a folder, and --write is the index of a manifest")
        args.folder, args.against, args.bands = Path(args.location), None, None
        return _run_folders(args)
    manifest = Manifest.read(args.location, root=args.root)
    search = image_sources.open_source
    return _check_sources(args, manifest, Findings(IMAGE_KINDS), search, search)


def _run_captions(args: argparse.Namespace) -> int:
    path = expand_path(args.location, "LOCATION")
    options = {key: getattr(args, key) for key in PAIRS.options if getattr(args, key)}
    _require_index_name(args.write)
    if path.suffix == ".toml":
        others_given = options.keys() - {"root"}
        if others_given:
            raise ValueError(f"{min(others_given)} belongs below a source of {path}")
        manifest = Manifest.read(path, root=args.root, form=PAIRS)
    else:
        if "root" in options:
            options["root"] = str(Path(options["root"]).absolute())
        sources = (entry_of(path, PAIRS, options),)
        manifest = Manifest(file=path, sources=sources, index=None, form=PAIRS)
    search = functools.partial(open_source, workers=args.workers, keep_going=True)
    return _check_sources(args, manifest, Findings(PAIR_KINDS), search, open_source)


def _require_index_name(file: Path | None) -> None:
    if file and file.suffix != INDEX_SUFFIX:
        raise ValueError(f"the index {file} must end in {INDEX_SUFFIX}")


def _check_sources(
    args: argparse.Namespace,
    manifest: Manifest,
    findings: Findings,
    search: Callable[..., Any],
    reopen: Callable[..., Any],
) -> int:
    """Check the sources of a manifest, and write what is asked for; return the exit code.

    `search` opens a source, and `reopen` does so by its table.
    """
    inputs = {"list": manifest.file if manifest.file.is_file() else None}
    check_outputs((args.write, args.report), overwrite=args.overwrite, inputs=inputs)
    unit = manifest.form.unit
    tables, counts = dict[str, Any](), dict[str, dict[str, int]]()
    for entry in manifest.sources:
        try:
            source = search(entry)
        except (OSError, ValueError) as error:
            findings.add("source", entry.name, str(error))
            continue
        if manifest.form is PAIRS:
            findings.merge(source.left_out)
        keep: Any = np.ones(len(source), bool)
        if not args.skip_decode:
            keep = read_source(entry, source, reopen, findings, workers=args.workers)
        left = int(keep.sum())
        counts[entry.name] = {unit: len(source), "left": left}
        echo(f"{entry.name}: {len(source):,} {unit}, {left:,} left")
        if left:
            tables[entry.name] = source.source.select(keep)
        else:
            findings.add("source", entry.name, f"no sample of it can be read ({unit})")
    code = _finish(args, findings, {"location": str(args.location), "sources": counts})
    if args.write and findings.count("source"):
        echo(f"{args.write} was not written")
    elif args.write:
        write_index(args.write, tables, manifest)
        echo(f"{args.write}: index of {sum(table['left'] for table in counts.values()):,} {unit}")
        noted = manifest.index and manifest.index.absolute() == args.write.absolute()
        if manifest.file.suffix == ".toml" and not noted:
            echo(f'to use it, write in {manifest.file}: index = "{args.write.absolute()}"')
    return code


def _run_folders(args: argparse.Namespace) -> int:
    check_outputs([args.report], overwrite=args.overwrite, inputs={})
    findings = Findings(class_folders.FOLDER_KINDS)
    folders = [args.folder] if args.against is None else [args.folder, args.against]
    parts = [
        class_folders.list_part(folder, findings, args.bands)
        for folder in (class_folders.find_parts(args.folder) or folders)
    ]
    for part in parts:
        line = f"{part.folder}: {len(part.names):,} images"
        if part.classes:
            counts = [f"{name} {count:,}" for name, count in part.classes.items()]
            more = [f"and {len(counts) - _SHOWN} more"] if len(counts) > _SHOWN else []
            line += f" of {counted(len(counts), 'class')}: {', '.join(counts[:_SHOWN] + more)}"
        echo(line)
    if len(parts[0].classes) == 1:
        echo("note: `eva train` takes a folder of one class for images without labels")
    class_folders.check_parts(
        parts, findings, workers=args.workers, decode=not args.skip_decode, bands=args.bands
    )
    about = {str(part.folder): part.classes or len(part.names) for part in parts}
    return _finish(args, findings, {"folders": about})


def _run_video(args: argparse.Namespace) -> int:
    """Check labelled videos: of a folder of splits each, against those before it."""
    location = Path(args.location)
    inputs = {"list": location if location.is_file() else None, "list of classes": args.classes}
    inputs |= {f"list {other}": Path(other) for other in args.against if Path(other).is_file()}
    outputs = (args.write, args.index, args.write_classes, args.report)
    check_outputs(outputs, overwrite=args.overwrite, inputs=inputs)
    folders = class_folders.find_parts(location) if location.is_dir() else []
    if not folders:
        return _check_videos(args)
    if args.write or args.index or args.write_classes:
        raise ValueError(f"{location} has parts: what is written is of one, such as {folders[0]}")
    values, classes, code = dict[str, Any](), list[str](), 0
    for number, folder in enumerate(folders):
        echo(f"{folder}:")
        against = [*args.against, *map(str, folders[:number])]
        part = {"location": str(folder), "against": against, "report": None}
        result: Any = _check_videos(argparse.Namespace(**{**vars(args), **part}), classes)
        values[folder.name], code = result.value, max(code, result)
        classes = classes or [*result.value["classes"]]
    if args.report:
        write_json(args.report, values)
    return Result(values, code)


def _check_videos(args: argparse.Namespace, known: Sequence[str] = ()) -> int:
    """Check one part, whose classes are all `known` where some are."""
    location = Path(args.location)
    _require_index_name(args.index)
    no_list = location.suffix == INDEX_SUFFIX or shard_pattern(location)
    listed_in = location if location.is_file() and not no_list else None
    state = None if listed_in is None else state_of(listed_in)  # before it is read
    videos = open_videos(location, classes=args.classes, root=args.root)
    if args.write and not isinstance(videos.source, FolderFiles):
        raise ValueError("shards have no paths for --write: give --index, which lists members")
    findings, keep = Findings(KINDS), np.ones(len(videos), bool)
    for kind, names in (("missing", videos.missing), ("unlisted", videos.unlisted)):
        findings.add_many(kind, len(names), iter(names))
    spellings = {*map(folded, known or videos.classes)}  # a training takes other ones as well
    unknown = [name for name in videos.classes if folded(name) not in spellings]
    findings.add_many("unknown", len(unknown), unknown)
    find_in_list(videos, findings, keep)
    facts: dict[str, Any] = {}
    if not args.skip_decode:
        facts = read_videos(videos, findings, keep, workers=args.workers)
    for other in args.against:
        find_leaks(videos, facts, other, findings, keep, classes=args.classes)
    code = _finish(args, findings, _about_videos(args.location, videos, keep, facts))
    left = np.flatnonzero(keep).tolist()
    if not left:
        echo("no video is left, and nothing else was written")
        return code
    if args.write:
        _write_list(args.write, videos, left)
    if args.index:
        write_video_index(args.index, videos, left, facts, listed_in=listed_in, state=state)
        echo(f"{args.index}: index of {len(left):,} videos")
    if args.write_classes:
        write_text(args.write_classes, "".join(f"{name}\n" for name in videos.classes))
    elif args.write and [*videos.classes] != [*map(str, range(len(videos.classes)))]:
        echo(f"{args.write} has numbers for its classes: --write-classes TXT keeps their names")
    return code


def _about_videos(location: str, videos: Any, keep: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """Print and return the numbers of videos, of all and of those that are left."""
    names, total = videos.classes, int(keep.sum())
    counts, left = (
        np.bincount(labels, minlength=len(names)).tolist()
        for labels in (videos.labels, videos.labels[keep])
    )
    echo(
        f"{counted(len(videos), 'video')} in {counted(len(names), 'class')}, {min(counts):,} to "
        f"{max(counts):,} in each, median {np.median(counts):g}; {total:,} are left"
    )
    totals = {name: int(facts[name][keep].sum()) for name in ("frames", "bytes") if facts}
    if totals:
        echo(f"they have {totals['frames']:,} frames in {totals['bytes']:,} bytes")
    rows = zip(names, counts, left, strict=True)
    classes = {name: {"videos": count, "left": left} for name, count, left in rows}
    numbers = {"videos": len(videos), "left_by_cleaning": total, **totals}
    return {"location": location, **numbers, "classes": classes}


def _write_list(file: Path, videos: Any, left: list[int]) -> None:
    """Write what is left with paths below the list's folder, or else with full ones."""
    root, folder = videos.source.folder.absolute(), file.parent.absolute()
    lines = []
    for index in left:
        path = root / videos.name(index)
        inside = root.is_relative_to(folder) and path.is_relative_to(folder)
        relative_path = str(path.relative_to(folder) if inside else path)
        line = list_line(relative_path, int(videos.labels[index]))
        if line is None:
            echo(f"{relative_path!r} cannot be written in a list: rename it, or give --index")
        else:
            lines.append(line)
    with open_atomic(file) as stream:  # names need not be text
        stream.writelines(f"{line}\n".encode("utf-8", "surrogateescape") for line in lines)
    echo(f"{file}: list of {len(lines):,} videos")


_CHECKS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "captions": _run_captions,
    "coco": _run_coco,
    "folders": _run_folders,
    "images": _run_images,
    "semantic": _run_semantic,
    "video": _run_video,
}


def run(args: argparse.Namespace) -> int:
    """Run the check that the options of `eva data verify` name."""
    return _CHECKS[args.command](args)
