"""Writes and checks what the COCO test-dev and LVIS servers take.

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
import math
import os
import re
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Detection = dict[str, Any]
FIELDS = {"bbox": "bbox", "segm": "segmentation"}
SHOWN = 20  # complaints of a file that are printed one by one
SPLITS = {"coco": "test-dev2017", "lvis": "test_dev"}


@dataclass(frozen=True)
class Server:
    """What a server wants.

    Attributes:
        name: file name without ending, with {split}, {algorithm} and {task}.
        limit: detections that it scores in one group.
        per_class: whether a group is a class of an image, or the image.
    """

    name: str
    limit: int
    per_class: bool

    def group(self, entry: Detection) -> Any:
        """The group that an entry is counted in."""
        key = entry["image_id"]
        return (key, entry["category_id"]) if self.per_class else key


# COCO: cocodataset.org/#upload, the same name for boxes and masks, which go to two competitions.
# LVIS: the reference material names no rule; the name says what is inside.
SERVERS: Mapping[str, Server] = {
    "coco": Server("detections_{split}_{algorithm}_results", 100, True),
    "lvis": Server("lvis_v1_{split}_{algorithm}_{task}_results", 300, False),
}


class ImageList:
    """Images and categories of a test set, from its `image_info_*.json`."""

    def __init__(self, file: Path) -> None:
        data = json.loads(file.read_text(encoding="utf-8"))
        self.sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
        self.categories = {category["id"] for category in data["categories"]}


def run_lengths(counts: str) -> list[int]:
    """Decodes the counts of a compressed RLE (cocoapi, maskApi.c: rleFrString).

    Raises:
        ValueError: if they end in the middle of a number or hold other characters.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("it ends in the middle of a number")
    return lengths


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bbox_problem(bbox: Any, size: tuple[int, int]) -> str | None:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        return f"bbox {bbox!r} is not four finite numbers"
    x, y, width, height = bbox
    if width < 0 or height < 0:
        return f"bbox {bbox} has a negative side; it is [x, y, width, height]"
    if x < -1 or y < -1 or x + width > size[1] + 1 or y + height > size[0] + 1:
        return f"bbox {bbox} leaves the image of {size[1]} x {size[0]} px"
    return None


def _segmentation_problem(mask: Any, size: tuple[int, int]) -> str | None:
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str):
        return "segmentation is not a compressed RLE with counts in a string"
    if mask.get("size") != list(size):
        return f"segmentation has size {mask.get('size')}, the image {list(size)} (height, width)"
    try:
        lengths = run_lengths(mask["counts"])
    except ValueError as error:
        return f"segmentation has broken counts: {error}"
    if min(lengths, default=0) < 0 or sum(lengths) != size[0] * size[1]:
        return f"segmentation covers {sum(lengths)} pixels, the image has {size[0] * size[1]}"
    return None


def problem_of(entry: Any, images: ImageList, tasks: Sequence[str]) -> str | None:
    """What is wrong with an entry, None if nothing.

    Args:
        entry: of the list of predictions.
        images: the test set.
        tasks: "bbox" and "segm": the fields that it must have.
    """
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, not an object"
    needed = ("image_id", "category_id", "score", *(FIELDS[task] for task in tasks))
    missing = [name for name in needed if name not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    for name, known in (("image_id", images.sizes), ("category_id", images.categories)):
        value = entry[name]
        if not isinstance(value, int) or isinstance(value, bool) or value not in known:
            return f"{name} {value!r} is not in the image list"
    if not _is_number(entry["score"]):
        return f"score {entry['score']!r} is not a finite number"
    size = images.sizes[entry["image_id"]]
    checks = {"bbox": _bbox_problem, "segm": _segmentation_problem}
    for task in tasks:
        problem = checks[task](entry[FIELDS[task]], size)
        if problem:
            return problem
    return None


def problems_of(entries: Any, images: ImageList, tasks: Sequence[str]) -> Iterator[str]:
    """Yields a line for each wrong entry."""
    if not isinstance(entries, list):
        yield f"holds a {type(entries).__name__}, not a list of detections"
        return
    for index, entry in enumerate(entries):
        problem = problem_of(entry, images, tasks)
        if problem:
            of = f" (image {entry.get('image_id')})" if isinstance(entry, dict) else ""
            yield f"entry {index}{of}: {problem}"


def prepare(
    entries: Sequence[Detection],
    task: str,
    server: Server,
    *,
    budget: int,
    decimals: tuple[int, int] = (2, 5),
) -> tuple[list[bytes], list[str]]:
    """Chooses, rounds and orders the entries of one file.

    Args:
        entries: valid predictions.
        task: "bbox" or "segm".
        server: whose limit counts.
        budget: bytes that the JSON may have.
        decimals: of boxes and of scores.

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
        line = _encode(entry, task, decimals)
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


def _encode(entry: Detection, task: str, decimals: tuple[int, int]) -> bytes:
    field = FIELDS[task]
    value = entry[field]
    if task == "bbox":
        value = [round(number, decimals[0]) for number in value]
    kept = {name: entry[name] for name in ("image_id", "category_id")}
    kept |= {field: value, "score": round(entry["score"], decimals[1])}
    return json.dumps(kept, separators=(",", ":")).encode()


def write_zip(file: Path, lines: Sequence[bytes]) -> None:
    """Writes NAME.zip with NAME.json at its top; it appears when it is complete."""
    part = file.with_name(file.name + ".part")
    with (
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{file.stem}.json", "w", force_zip64=True) as member,
    ):
        member.write(b"[" + b",\n".join(lines) + b"]\n")
    os.replace(part, file)


def check(file: Path, task: str, server_name: str, images: ImageList) -> Iterator[str]:
    """Yields what is wrong with a file that is to be sent, or its JSON before packing."""
    server = SERVERS[server_name]
    parts = {"split": r"[\w-]+", "algorithm": r".+", "task": task}
    if not re.fullmatch(server.name.format(**parts), file.stem):
        shown = {"split": SPLITS[server_name], "algorithm": "ALGORITHM", "task": task}
        yield f"is named {file.name}, not {server.name.format(**shown)}.zip"
    if file.suffix == ".zip":
        if not zipfile.is_zipfile(file):
            yield "is no zip file"
            return
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if names != [f"{file.stem}.json"]:
                yield f"holds {', '.join(names) or 'nothing'}, not {file.stem}.json alone"
                return
            data = archive.read(names[0])
    else:
        data = file.read_bytes()
    try:
        entries = json.loads(data)
    except ValueError as error:
        yield f"is no JSON: {error}"
        return
    yield from problems_of(entries, images, [task])
    if not isinstance(entries, list):
        return
    other = FIELDS["segm" if task == "bbox" else "bbox"]
    entries = [entry for entry in entries if isinstance(entry, dict)]
    both = sum(other in entry for entry in entries)
    if both:
        yield f"{both} entries of this {task} file have {other}: the areas would be wrong"
    if not entries:
        yield "holds no detections"
    whole = (entry for entry in entries if {"image_id", "category_id"} <= entry.keys())
    over = [key for key, n in Counter(map(_key(server), whole)).items() if n > server.limit]
    if over:
        unit = "(image, class)" if server.per_class else "image"
        yield f"{len(over)} times more than {server.limit} detections of one {unit}: {over[0]}, ..."


def _key(server: Server) -> Any:
    return lambda entry: str(server.group(entry))  # unhashable ids are complained about already


def write(args: argparse.Namespace) -> int:
    """The command `write`; returns the exit code."""
    server = SERVERS[args.server]
    images = ImageList(args.images)
    entries = json.loads(args.predictions.read_text(encoding="utf-8"))
    tasks = args.task or ["bbox", "segm"]
    if not args.task and isinstance(entries, list):  # a detector of boxes alone has no masks
        with_masks = any(isinstance(entry, dict) and "segmentation" in entry for entry in entries)
        tasks = tasks if with_masks else ["bbox"]
    if not _report(args.predictions, problems_of(entries, images, tasks)):
        return 1
    files = {}
    for task in tasks:
        name = server.name.format(split=args.split, algorithm=args.algorithm, task=task)
        files[task] = args.output / task / f"{name}.zip"
        if files[task].exists() and not args.overwrite:
            print(f"{files[task]} is there already: give --overwrite", file=sys.stderr)
            return 1
    for task, file in files.items():
        lines, notes = prepare(entries, task, server, budget=round(args.max_mb * 1e6))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_zip(file, lines)
        print("\n".join([*notes, f"{file}: {len(lines)} detections"]))
        if not _report(file, check(file, task, args.server, images)):
            return 1
    covered = {entry["image_id"] for entry in entries}
    if len(covered) < len(images.sizes):
        print(f"{len(images.sizes) - len(covered)} of {len(images.sizes)} images have no detection")
    return 0


def _report(file: Path, problems: Iterator[str]) -> bool:
    """Prints the first problems and the number of the rest; returns whether there is none."""
    count = 0
    for problem in problems:
        count += 1
        if count <= SHOWN:
            print(f"{file.name}: {problem}", file=sys.stderr)
    if count > SHOWN:
        print(f"{file.name}: and {count - SHOWN} more problems", file=sys.stderr)
    return not count


def _algorithm(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"letters, digits, '-', '.' and '_', got {text!r}")
    return text


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="make the files from a run's predictions")
    checking = commands.add_parser("check", help="check a file against the image list")
    for command in (writing, checking):
        command.add_argument("--server", required=True, choices=SERVERS)
        command.add_argument("--images", required=True, type=Path, help="image_info_*.json")
    writing.add_argument("--predictions", required=True, type=Path, help="*_results.json")
    writing.add_argument("--output", required=True, type=Path, help="folder for bbox/ and segm/")
    writing.add_argument("--algorithm", required=True, type=_algorithm, help="name of the method")
    writing.add_argument("--split", help="by default test-dev2017 (COCO), test_dev (LVIS)")
    writing.add_argument("--task", nargs="+", choices=FIELDS, help="by default what is there")
    writing.add_argument(
        "--max-mb",
        type=float,
        default=1000,
        help="size of a file's JSON; 1200 MB have been too much for COCO's (default %(default)s)",
    )
    writing.add_argument("--overwrite", action="store_true", help="replace earlier files")
    checking.add_argument("--task", required=True, choices=FIELDS)
    checking.add_argument("file", type=Path, help=".zip, or the .json before packing")
    args = parser.parse_args(arguments)
    if args.command == "write":
        args.split = args.split or SPLITS[args.server]
    for name in ("images", "predictions", "file"):
        path = getattr(args, name, None)
        if path is not None and not path.is_file():
            parser.error(f"there is no file {path}")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    if args.command == "write":
        return write(args)
    ok = _report(args.file, check(args.file, args.task, args.server, ImageList(args.images)))
    if ok:
        print(f"{args.file}: nothing to complain about")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
