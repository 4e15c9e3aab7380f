r"""Write and check what the servers of COCO test-dev and LVIS take.

    python tools/make_submission.py write --server coco --algorithm eva \
        --images datasets/coco/annotations/image_info_test-dev2017.json \
        --predictions output/run/inference/coco_instances_results.json --output output/submission
    python tools/make_submission.py check --server coco --task segm \
        --images datasets/coco/annotations/image_info_test-dev2017.json FILE.zip

Boxes and masks are files of their own: an entry with both gets its area from the box, which moves
APs, APm and APl. Left out is only what the servers do not score (beyond 100 of a class and image on
COCO, 300 of an image on LVIS) and, over the size budget, the lowest scores; both are printed.
The predictions are read into memory.
"""

import argparse
import json
import re
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eva_data.detection.coco import parse_json
from eva_data.files import make_folder, replacing
from eva_detection.evaluation.submission_checks import (
    FIELDS,
    SERVERS,
    SPLITS,
    Detection,
    ImageList,
    Server,
    check,
    problems_of,
)
from eva_runs.command_line.parsing import Parser
from eva_runs.commands import complain, program, say
from eva_runs.options import number

_SHOWN = 20  # complaints of a file that are printed one by one


def prepare(
    entries: Sequence[Detection],
    task: str,
    server: Server,
    *,
    budget: int,
) -> tuple[list[bytes], list[str]]:
    """Choose, round and order the entries of one file.

    Args:
        entries: Valid predictions.
        task: "bbox" or "segm".
        server: Server that takes the file.
        budget: Bytes that the JSON may have.

    Returns:
        The entries as JSON, by image and falling score, and a line for each kind of omission.
    """
    groups: dict[Any, list[Detection]] = defaultdict(list)
    for entry in entries:
        groups[server.group(entry)].append(entry)
    chosen: list[Detection] = []
    for group in groups.values():
        chosen += sorted(group, key=lambda entry: -entry["score"])[: server.limit]
    notes = []
    if len(chosen) < len(entries):
        unit = "class and image" if server.per_class else "image"
        left = len(entries) - len(chosen)
        notes.append(f"{task}: left out {left} beyond {server.limit} of one {unit}, never scored")
    chosen.sort(key=lambda entry: -entry["score"])
    lines: list[tuple[Detection, bytes]] = []
    used = len("[]\n")
    for entry in chosen:
        line = _encode(entry, task)
        used += len(line) + len(",\n")
        if used > budget:
            notes.append(
                f"{task}: left out {len(chosen) - len(lines)} of {len(chosen)} with scores up to "
                f"{entry['score']:.5f}, to stay within {budget / 1e6:g} MB"
            )
            break
        lines.append((entry, line))
    lines.sort(key=lambda pair: pair[0]["image_id"])  # stable: scores fall within an image
    return [line for _, line in lines], notes


def _encode(entry: Detection, task: str) -> bytes:
    field = FIELDS[task]
    value = entry[field]
    if task == "bbox":
        value = [round(side, 2) for side in value]
    kept = {name: entry[name] for name in ("image_id", "category_id")}
    kept |= {field: value, "score": round(entry["score"], 5)}
    return json.dumps(kept, separators=(",", ":")).encode()


def write_zip(file: Path, lines: Sequence[bytes]) -> None:
    """Write NAME.zip with NAME.json at its top, completely or not at all.

    Args:
        file: NAME.zip; its folder exists.
        lines: Entries as JSON.
    """
    with (
        replacing(file) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{file.stem}.json", "w", force_zip64=True) as member,
    ):
        member.write(b"[" + b",\n".join(lines) + b"]\n")


def write(args: argparse.Namespace) -> int:
    """Run the command `write`; return the exit code."""
    server = SERVERS[args.server]
    images = ImageList(args.images)
    entries = parse_json(args.predictions.read_bytes(), str(args.predictions))
    tasks = args.task or ["bbox", "segm"]
    if not args.task and isinstance(entries, list):  # a detector of boxes alone has no masks
        with_masks = any(isinstance(entry, dict) and "segmentation" in entry for entry in entries)
        tasks = tasks if with_masks else ["bbox"]
    if not _report(args.predictions, problems_of(entries, images, tasks)):
        return 1
    if not entries:
        raise ValueError(f"{args.predictions} holds no detections")
    files = {}
    for task in tasks:
        name = server.name.format(split=args.split, algorithm=args.algorithm, task=task)
        files[task] = args.output / task / f"{name}.zip"
        if files[task].exists() and not args.overwrite:
            complain(f"{files[task]} is there already: give --overwrite")
            return 1
    for task, file in files.items():
        lines, notes = prepare(entries, task, server, budget=round(args.max_mb * 1e6))
        make_folder(file.parent)
        write_zip(file, lines)
        say("\n".join([*notes, f"{file}: {len(lines)} detections"]))
        if not _report(file, check(file, task, args.server, images)):
            return 1
    covered = {entry["image_id"] for entry in entries}
    if len(covered) < len(images.sizes):
        say(f"{len(images.sizes) - len(covered)} of {len(images.sizes)} images have no detection")
    return 0


def _report(file: Path, problems: Iterator[str]) -> bool:
    """Print the first problems and the number of the rest; return whether there is none."""
    count = 0
    for problem in problems:
        count += 1
        if count <= _SHOWN:
            complain(f"{file.name}: {problem}")
    if count > _SHOWN:
        complain(f"{file.name}: and {count - _SHOWN} more problems")
    return not count


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,100}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"letters, digits, '-', '.' and '_', got {text!r}")
    return text


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="make the files from a run's predictions")
    checking = commands.add_parser("check", help="check a file against the image list")
    for command in (writing, checking):
        command.add_argument("--server", required=True, choices=SERVERS)
        command.add_argument("--images", required=True, type=Path, help="image_info_*.json")
    writing.add_argument("--predictions", required=True, type=Path, help="*_results.json")
    writing.add_argument("--output", required=True, type=Path, help="folder for bbox/ and segm/")
    writing.add_argument("--algorithm", required=True, type=_name, help="name of the method")
    writing.add_argument(
        "--split", type=_name, help="by default test-dev2017 (COCO), test_dev (LVIS)"
    )
    writing.add_argument("--task", nargs="+", choices=FIELDS, help="by default what is there")
    writing.add_argument(
        "--max-mb",
        type=number(0.001, 1_000_000),
        default=1000,
        help="size of a file's JSON; 1200 MB have been too much for COCO's (default %(default)s)",
    )
    writing.add_argument("--overwrite", action="store_true", help="replace earlier files")
    checking.add_argument("--task", required=True, choices=FIELDS)
    checking.add_argument("file", type=Path, help=".zip, or the .json before packing")
    args = parser.parse_args(arguments)
    if args.command == "write":
        args.split = args.split or SPLITS[args.server]
    return args


def _check(args: argparse.Namespace) -> int:
    """Run the command `check`; return the exit code."""
    if not _report(args.file, check(args.file, args.task, args.server, ImageList(args.images))):
        return 1
    say(f"{args.file}: nothing to complain about")
    return 0


def _run(args: argparse.Namespace) -> int:
    for name in ("images", "predictions", "file"):
        path = getattr(args, name, None)
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    return write(args) if args.command == "write" else _check(args)


main = program(parse, _run, name="make_submission.py")


if __name__ == "__main__":
    sys.exit(main())
