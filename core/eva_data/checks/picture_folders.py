"""Check folders of pictures, as they are: of classes, of training and validation, or of nothing.

    python tools/verify_data.py folders photos/
    python tools/verify_data.py folders mine/train --against mine/val

Every picture is decoded. Folders directly below are classes, unless the only ones are `train` and
`val` (or `valid`, `test`), which are then compared. Copies are files of the same content.
"""

import argparse
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eva_data.checks.command import add_shared
from eva_data.checks.findings import Findings, Kind, write_json
from eva_data.checks.pictures import inspect_all
from eva_data.files import IMAGE_SUFFIXES, LISTED_IMAGE_SUFFIXES, find_files
from eva_data.pools import ordered_map
from eva_runs.commands import check_outputs, say

KINDS = {
    "unreadable": Kind("picture that cannot be read", "-"),
    "depth": Kind("picture of 32 bits or fractions, which are refused", "-"),
    "two_classes": Kind("picture with the content of one of another class", "-"),
    "leak": Kind("picture with the content of one of the other part", "-"),
    "class_unknown": Kind("class that training does not have", "-"),
    "copy": Kind("picture with the content of another of its class", "-", note=True),
    "class_empty": Kind("class without a picture", "-", note=True),
    "class_unseen": Kind("class of training that the other part does not have", "-", note=True),
    "stray": Kind("picture beside the folders of classes, which is not read", "-", note=True),
}
_PARTS = ("train", "val", "valid", "validation", "test")
_SHOWN = 30  # classes with their counts


class _Part(NamedTuple):
    folder: Path
    names: list[str]
    classes: dict[str, int]  # pictures of each; none where the folder has no classes

    def class_of(self, name: str) -> str:
        return name.partition("/")[0] if self.classes else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.set_defaults(run=check_folders, against=None)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of pictures or of folders of classes")
    add("--against", type=Path, metavar="FOLDER", help="the other part, such as for validation")
    add_shared(parser, "pictures", skip="read the headers of pictures only")


def check_folders(args: argparse.Namespace) -> int:
    """Check one or two folders, and write what is asked for.

    Args:
        args: `folder`, `against` (or None) and the options of `add_shared`.

    Returns:
        The exit code: 0 without problems, 1 with some.

    Raises:
        ValueError: If a folder holds no picture, or the report cannot be written.
    """
    check_outputs([args.report], overwrite=args.overwrite, inputs={})
    findings = Findings(KINDS)
    folders = [args.folder] if args.against is None else [args.folder, args.against]
    parts = [_list(folder, findings) for folder in (_split(args.folder) or folders)]
    for part in parts:
        _say(part)
        _look(part, findings, workers=args.workers, decode=not args.skip_decode)
    _find_copies(parts, findings, workers=args.workers)
    _compare_classes(parts, findings)
    listed = findings.as_json()
    if listed:
        say(findings.table())
    say(findings.summary())
    if args.report:
        about = {str(part.folder): part.classes or len(part.names) for part in parts}
        content = {"folders": about, "problems": findings.problems, "findings": listed}
        write_json(args.report, content)
    return 1 if findings.problems else 0


def _split(folder: Path) -> list[Path]:
    """Return the folders of training and of what it is evaluated on, if there is nothing else."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    names = {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
    split = "train" in names and len(names) > 1 and names <= {*_PARTS}
    return [folder / name for name in _PARTS if name in names] if split else []


def _list(folder: Path, findings: Findings) -> _Part:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    names = list(find_files(folder, IMAGE_SUFFIXES))
    if not names:
        raise ValueError(f"{folder} holds no picture ({LISTED_IMAGE_SUFFIXES})")
    below = [name for name in names if "/" in name]
    if not below:
        return _Part(folder, names, {})
    counts = Counter(name.partition("/")[0] for name in below)
    shown = (entry.name for entry in folder.iterdir() if entry.is_dir())
    classes = {name: counts[name] for name in sorted(shown) if not name.startswith(".")}
    stray = [name for name in names if "/" not in name]
    findings.add_many("stray", len(stray), (f"{folder}/{name}" for name in stray))
    for name, count in classes.items():
        if not count:
            findings.add("class_empty", str(folder / name))
    return _Part(folder, below, classes)


def _say(part: _Part) -> None:
    text = f"{part.folder}: {len(part.names):,} pictures"
    if part.classes:
        counts = [f"{name} {count:,}" for name, count in part.classes.items()]
        more = [f"and {len(counts) - _SHOWN} more"] if len(counts) > _SHOWN else []
        text += f" of {len(counts):,} classes: {', '.join(counts[:_SHOWN] + more)}"
    say(text)


def _look(part: _Part, findings: Findings, *, workers: int, decode: bool) -> None:
    for name, found in zip(
        part.names,
        inspect_all(part.folder, part.names, workers=workers, decode=decode),
        strict=True,
    ):
        path = f"{part.folder}/{name}"
        if found.problem or found.missing:
            findings.add("unreadable", path, found.problem or "it is not there")
        elif found.bits == 32:
            findings.add("depth", path, f"mode {found.mode}")


def _find_copies(parts: Sequence[_Part], findings: Findings, *, workers: int) -> None:
    """Compare the contents of those files that have the size of another."""
    sizes: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for number, part in enumerate(parts):
        for name in part.names:
            path = part.folder / name
            if path.is_file():
                sizes[path.stat().st_size].append((number, name))
    alike = [one for size, same in sizes.items() if size and len(same) > 1 for one in same]
    alike.sort()
    paths = [f"{parts[number].folder}/{name}" for number, name in alike]
    seen: dict[bytes, tuple[int, str]] = {}
    contents = ordered_map(_digest, paths, workers=workers, what="copies")
    for (number, name), content in zip(alike, contents, strict=True):
        if content is None:
            continue
        first = seen.setdefault(content, (number, name))
        if first == (number, name):
            continue
        before, part = parts[first[0]], parts[number]
        kind = "copy"
        if before is not part:
            kind = "leak"
        elif before.class_of(first[1]) != part.class_of(name):
            kind = "two_classes"
        findings.add(kind, f"{part.folder}/{name}", f"as {before.folder}/{first[1]}")


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None  # which was named before


def _compare_classes(parts: Sequence[_Part], findings: Findings) -> None:
    first, *others = parts
    for part in others:
        if not (first.classes and part.classes):
            continue
        unknown = sorted({*part.classes} - {*first.classes})
        unseen = sorted({*first.classes} - {*part.classes})
        findings.add_many(
            "class_unknown", len(unknown), (f"{part.folder}/{one}" for one in unknown)
        )
        findings.add_many("class_unseen", len(unseen), (f"{part.folder}/{one}" for one in unseen))


def report_only(args: argparse.Namespace) -> int:
    """Check a folder where a manifest is expected, which alone has an index.

    Args:
        args: Options of `eva_data.checks.manifests`; `manifest` is a folder.

    Returns:
        The exit code.

    Raises:
        ValueError: If an index is asked for.
    """
    if args.write:
        raise ValueError(
            f"{args.manifest} is a folder: an index, as of --write, belongs to a manifest (TOML)"
        )
    given: dict[str, Any] = {**vars(args), "folder": args.manifest, "against": None}
    return check_folders(argparse.Namespace(**given))
