r"""Write and check what the servers of COCO test-dev and LVIS take.

    eva detection submit write --server coco --algorithm eva \
        --images datasets/coco/annotations/image_info_test-dev2017.json \
        --predictions output/run/inference/coco_instances_results.json --output output/submission
    eva detection submit check --server coco --task segm \
        --images datasets/coco/annotations/image_info_test-dev2017.json FILE.zip

Boxes and masks are files of their own: an entry with both gets its area from the box, which moves
APs, APm and APl. Left out is only what the servers do not score (beyond 100 of a class and image on
COCO, 300 of an image on LVIS) and, over the size budget, the lowest scores; both are printed.
"""

import argparse
import contextlib
import itertools
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eva_data.detection.rules import format_value, is_box, is_integer, is_number, rle_runs
from eva_data.files import load_json, parse_json, require_regular_file
from eva_data.saving import make_folder, replace_file
from eva_runs.commands import Command, check_outputs, echo
from eva_runs.errors import print_error
from eva_runs.options import command_parser, number

Detection = dict[str, Any]
FIELDS = {"bbox": "bbox", "segm": "segmentation"}
_SHOWN = 20  # complaints of a file that are printed one by one


class Server(NamedTuple):
    """Rules of a server: a file's name, its usual split, what it scores of one group at most."""

    name: str
    split: str
    limit: int
    group: tuple[str, ...]


# COCO: cocodataset.org/#upload, the same name for boxes and masks, which go to two competitions.
# LVIS: the reference material names no rule; the name says what is inside.
SERVERS: Mapping[str, Server] = {
    "coco": Server(
        name="detections_{split}_{algorithm}_results",
        split="test-dev2017",
        limit=100,
        group=("image_id", "category_id"),
    ),
    "lvis": Server(
        name="lvis_v1_{split}_{algorithm}_{task}_results",
        split="test_dev",
        limit=300,
        group=("image_id",),
    ),
}


class ImageList(NamedTuple):
    """Height and width of each image id of a test set, and its category ids."""

    sizes: dict[int, tuple[int, int]]
    categories: set[int]


def read_image_list(file: Path) -> ImageList:
    """Read an `image_info_*.json`; a ValueError names a file that is none."""
    data = load_json(file)
    images = ImageList({}, set())
    with contextlib.suppress(KeyError, TypeError):
        images.sizes.update(
            {image["id"]: (image["height"], image["width"]) for image in data["images"]}
        )
        images.categories.update(category["id"] for category in data["categories"])
    numbers = [*images.sizes, *itertools.chain(*images.sizes.values()), *images.categories]
    if not images.categories or not all(map(is_integer, numbers)):
        raise ValueError(f"{file} is not an image_info_*.json, with ids and sizes in integers")
    return images


def problem_of(entry: Any, images: ImageList, tasks: Sequence[str]) -> str | None:
    """Find out what is wrong with an entry."""
    needed = ("image_id", "category_id", "score", *(FIELDS[task] for task in tasks))
    missing = [name for name in needed if not isinstance(entry, dict) or name not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    for name, allowed in (("image_id", images.sizes), ("category_id", images.categories)):
        if not is_integer(entry[name]) or entry[name] not in allowed:
            return f"{name} {format_value(entry[name])} is not in the image list"
    if not is_number(entry["score"]):
        return f"score {format_value(entry['score'])} is not a finite number"
    height, width = images.sizes[entry["image_id"]]
    box, mask = entry.get("bbox"), entry.get("segmentation")
    if "bbox" in tasks:
        if not is_box(box) or min(box[2:]) < 0:
            return f"bbox {format_value(box)} is not [x, y, width, height] in finite numbers"
        if min(box[:2]) < -1 or box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1:
            return f"bbox {box} leaves the image of {width} x {height} px"
    if "segm" in tasks:
        if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
            return "segmentation is not a compressed RLE with counts in a string"
        try:
            rle_runs(mask, (height, width))
        except ValueError as error:
            return f"segmentation is an {error}"
    return None


def problems_of(entries: Any, images: ImageList, tasks: Sequence[str]) -> Iterator[str]:
    """Yield a line for each wrong entry."""
    if not isinstance(entries, list) or not entries:
        yield f"holds {format_value(entries)}, not a list of detections"
        return
    for index, entry in enumerate(entries):
        problem = problem_of(entry, images, tasks)
        if problem:
            of = (
                f" (image {format_value(entry.get('image_id'))})" if isinstance(entry, dict) else ""
            )
            yield f"entry {index}{of}: {problem}"


def check(file: Path, task: str, server: Server, images: ImageList) -> Iterator[str]:
    """Yield what is wrong with a file that is to be sent, or its JSON before packing."""
    parts = {"split": r"[\w-]+", "algorithm": r".+", "task": task}
    if not re.fullmatch(server.name.format(**parts), file.stem):
        file_name = server.name.format(split=server.split, algorithm="ALGORITHM", task=task)
        yield f"is named {file.name}, not {file_name}.zip"
    try:
        entries = parse_json(_unpacked(file) if file.suffix == ".zip" else file.read_bytes(), "it")
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        yield str(error)
        return
    problems = list(problems_of(entries, images, [task]))
    yield from problems
    if problems:
        return
    other = FIELDS["segm" if task == "bbox" else "bbox"]
    both = sum(other in entry for entry in entries)
    if both:
        yield f"{both} entries of this {task} file have {other}: the areas would be wrong"
    counts = Counter(tuple(entry[key] for key in server.group) for entry in entries)
    over = [group for group, count in counts.items() if count > server.limit]
    if over:
        of = f"more than {server.limit} of one {' and '.join(server.group)}"
        yield f"{len(over)} times {of}: {over[0]}, ..."


def _unpacked(file: Path) -> bytes:
    """Read the JSON in a zip file; a file of another content is a ValueError."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if names != [f"{file.stem}.json"]:
            raise ValueError(f"holds {format_value(names)}, not {file.stem}.json alone")
        return archive.read(names[0])


def prepare(
    entries: Sequence[Detection], task: str, server: Server, *, budget: int
) -> tuple[list[bytes], list[str]]:
    """Choose, round and order the entries of one file; returns their lines, and notes."""
    counts: Counter[Any] = Counter()
    selected = []
    for entry in sorted(entries, key=lambda entry: -entry["score"]):
        group = tuple(entry[key] for key in server.group)
        counts[group] += 1
        if counts[group] <= server.limit:
            selected.append(entry)
    notes = []
    left = len(entries) - len(selected)
    if left:
        of = f"beyond {server.limit} of one {' and '.join(server.group)}, never scored"
        notes.append(f"{task}: left out {left} {of}")
    lines: list[tuple[int, bytes]] = []
    used = len("[]\n")
    for entry in selected:
        fields = {name: entry[name] for name in ("image_id", "category_id", FIELDS[task])}
        if task == "bbox":
            fields["bbox"] = [round(side, 2) for side in entry["bbox"]]
        fields["score"] = round(entry["score"], 5)
        line = json.dumps(fields, separators=(",", ":")).encode()
        used += len(line) + len(",\n")
        if used > budget:
            notes.append(
                f"{task}: left out {len(selected) - len(lines)} of {len(selected)} with scores "
                f"up to {entry['score']:.5f}, to stay within {budget / 1e6:g} MB"
            )
            break
        lines.append((entry["image_id"], line))
    lines.sort(key=lambda pair: pair[0])  # stable: scores fall within an image
    return [line for _, line in lines], notes


def _write(args: argparse.Namespace) -> int:
    """Run the command `write`; return the exit code."""
    server, images = SERVERS[args.server], read_image_list(args.images)
    entries = load_json(args.predictions)
    listed = entries if isinstance(entries, list) else []
    masks = any("segmentation" in entry for entry in listed if isinstance(entry, dict))
    tasks = args.task or (["bbox", "segm"] if masks else ["bbox"])
    if not _report(args.predictions, problems_of(entries, images, tasks)):
        return 1
    files = {}
    for task in tasks:
        parts = dict(split=args.split or server.split, algorithm=args.algorithm, task=task)
        files[task] = args.output / task / f"{server.name.format(**parts)}.zip"
        make_folder(files[task].parent)
    inputs = {"image list": args.images, "predictions": args.predictions}
    check_outputs([*files.values()], overwrite=args.overwrite, inputs=inputs)
    for task, file in files.items():
        lines, notes = prepare(entries, task, server, budget=round(args.max_mb * 1e6))
        with (
            replace_file(file) as part,
            zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(f"{file.stem}.json", "w", force_zip64=True) as member,
        ):
            member.write(b"[" + b",\n".join(lines) + b"]\n")
        echo("\n".join([*notes, f"{file}: {len(lines)} detections"]))
        if not _report(file, check(file, task, server, images)):
            return 1
    empty = len(images.sizes) - len({entry["image_id"] for entry in entries})
    if empty:
        echo(f"{empty} of {len(images.sizes)} images have no detection")
    return 0


def _check(args: argparse.Namespace) -> int:
    """Run the command `check`; return the exit code."""
    require_regular_file(args.file)
    images = read_image_list(args.images)
    if not _report(args.file, check(args.file, args.task, SERVERS[args.server], images)):
        return 1
    echo(f"{args.file}: nothing to complain about")
    return 0


def _report(file: Path, problems: Iterator[str]) -> bool:
    """Print the first problems and the number of the rest; return whether there is none."""
    count = 0
    for count, problem in enumerate(problems, start=1):
        if count <= _SHOWN:
            print_error(f"{file.name}: {problem}")
    if count > _SHOWN:
        print_error(f"{file.name}: and {count - _SHOWN} more problems")
    return not count


def _name(string: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,100}", string, re.ASCII):
        raise argparse.ArgumentTypeError(f"letters, digits, '-', '.' and '_', got {string!r}")
    return string


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(required=True)
    writing = commands.add_parser("write", help="make the files from a run's predictions")
    checking = commands.add_parser("check", help="check a file against the image list")
    for command, run in ((writing, _write), (checking, _check)):
        command.add_argument("--server", required=True, choices=SERVERS)
        command.add_argument("--images", required=True, type=Path, help="image_info_*.json")
        command.set_defaults(run=run)
    add = writing.add_argument
    add("--predictions", required=True, type=Path, help="*_results.json")
    add("--output", required=True, type=Path, help="folder for bbox/ and segm/")
    add("--algorithm", required=True, type=_name, help="name of the method")
    add("--split", type=_name, help="by default test-dev2017 (COCO), test_dev (LVIS)")
    add("--task", nargs="+", choices=FIELDS, help="by default what is there")
    help_text = "size of a file's JSON; 1200 MB have been too much for COCO's (default %(default)s)"
    add("--max-mb", type=number(0.001, 1_000_000), default=1000, help=help_text)
    add("--overwrite", action="store_true", help="replace earlier files")
    checking.add_argument("--task", required=True, choices=FIELDS)
    checking.add_argument("file", type=Path, help=".zip, or the .json before packing")
    return parser.parse_args(arguments)


main = Command("eva detection submit", parse, lambda args: args.run(args))
