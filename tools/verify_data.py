"""Checks a data set before it is trained on, and writes a cleaned copy.

    python tools/verify_data.py coco --annotations instances.json --images folder/
    python tools/verify_data.py coco --annotations instances.json --images folder/ \
        --write cleaned.json --report findings.json
    python tools/verify_data.py images manifest.toml --write index.safetensors
    python tools/verify_data.py semantic --images photos/ --maps labels/ --classes classes.toml

Exit code: 0 if there is no problem (notes are none), 1 if there are problems, also when a cleaned
file was written, 2 if the command line or the file cannot be used.
"""

import argparse
import importlib
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def coco(args: argparse.Namespace) -> int:
    """The command `coco`; returns the exit code."""
    from findings import write_json
    from verify_coco import clean, load, verify

    data = load(args.annotations)
    sizes = ", ".join(f"{len(data[name]):,} {name}" for name in ("images", "annotations"))
    print(f"{args.annotations}: {sizes}, {len(data['categories']):,} categories")
    verified = verify(
        data,
        folder=args.images,
        workers=args.workers,
        decode=not args.skip_decode,
        tolerance=args.tolerance,
        boxes_only=args.boxes_only,
    )
    findings = verified.findings
    listed = findings.as_json()
    if listed:
        print(findings.table())
    if args.images is None:
        print("image files were not looked at: give --images FOLDER")
    kept = {
        "images": sum(verified.keep_images),
        "annotations": sum(verified.kept_annotations()),
    }
    if args.report:
        about = {"annotations": str(args.annotations), "images": str(args.images or "")}
        counts = {"problems": findings.problems, "left_by_cleaning": kept}
        write_json(args.report, about | counts | {"findings": listed})
    if args.write:
        try:
            write_json(args.write, clean(verified))
        except ValueError as error:
            print(f"nothing was written: {error}", file=sys.stderr)
            return 1
        left = ", ".join(f"{kept[name]:,} of {len(data[name]):,} {name}" for name in kept)
        print(f"{args.write}: cleaned, {left}")
    if not findings.problems:
        print("no problem")
        return 0
    word = "problem" if findings.problems == 1 else "problems"
    print(f"{findings.problems:,} {word}" + (f" in {args.annotations}" if args.write else ""))
    return 1


def _at_least(least: int, kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least}")
        return value

    return number


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("coco", help="an annotation file of COCO's or LVIS's format")
    command.set_defaults(run=coco)
    add = command.add_argument
    add("--annotations", required=True, type=Path, metavar="JSON", help="the file to check")
    add("--images", type=Path, metavar="DIR", help="folder of the pictures, looked at if given")
    add("--write", type=Path, metavar="JSON", help="also write a file without the problems")
    add("--report", type=Path, metavar="JSON", help="also write the findings, with more ids")
    add("--overwrite", action="store_true", help="replace earlier --write and --report files")
    add(
        "--tolerance",
        type=_at_least(0, float),
        default=1.0,
        metavar="PX",
        help="that boxes and polygons may leave the image (default %(default)s)",
    )
    add("--boxes-only", action="store_true", help="leave masks alone, of the cleaned file too")
    add("--skip-decode", action="store_true", help="read the headers of pictures only")
    add(
        "--workers",
        type=_at_least(1, int),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that decode pictures (default %(default)s)",
    )
    _add_commands(commands, sys.argv[1:] if arguments is None else arguments)
    args = parser.parse_args(arguments)
    if args.command == "coco":
        _check_paths(parser, args)
    return args


def _add_commands(commands: Any, arguments: Sequence[str]) -> None:
    """The commands whose modules import a package; only the one that is asked for."""
    texts = {
        "images": ("verify_manifest", "the images of pre-training, and their index"),
        "semantic": ("verify_semantic", "images and label maps for semantic segmentation"),
    }
    for name, (module, text) in texts.items():
        command = commands.add_parser(name, help=text)
        if name in arguments[:1]:
            importlib.import_module(module).add_arguments(command)


def _check_paths(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.annotations.is_file():
        parser.error(f"there is no file {args.annotations}")
    if args.images and not args.images.is_dir():
        parser.error(f"there is no folder {args.images}")
    if args.skip_decode and not args.images:
        parser.error("--skip-decode has no effect without --images")
    outputs = [path for path in (args.write, args.report) if path]
    if len({path.resolve() for path in outputs}) < len(outputs):
        parser.error("--write and --report are the same file")
    for path in outputs:
        if path.exists() and path.samefile(args.annotations):
            parser.error(f"{path} is the file to check: it is never overwritten, name another one")
        if path.is_dir() or not path.parent.is_dir():
            parser.error(f"{path} is no place for a file: name one in an existing folder")
        if path.exists() and not args.overwrite:
            parser.error(f"{path} is there already: give --overwrite")


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return args.run(args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
