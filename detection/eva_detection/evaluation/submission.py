r"""Write and check what the servers of COCO test-dev and LVIS take.

    eva detection submit write --server coco --algorithm eva \
        --images datasets/coco/annotations/image_info_test-dev2017.json \
        --predictions output/run/inference/coco_instances_results.json --output output/submission
    eva detection submit check --server coco --task segm \
        --images datasets/coco/annotations/image_info_test-dev2017.json FILE.zip

Boxes and masks are files of their own: an entry with both gets its area from the box, which moves
APs, APm and APl. Left out is only what the servers do not score (beyond 100 of a class and image on
COCO, 300 of an image on LVIS) and, over the size budget, the lowest scores; both are printed.
The predictions are read into memory.
"""

import argparse
import itertools
import json
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_data.detection.coco import parse_json
from eva_data.detection.rules import is_box, is_integer, is_number, rle_runs, shown
from eva_data.files import make_folder, replacing, require_regular_file
from eva_runs.commands import check_outputs, complain, program, say
from eva_runs.options import number

Detection = dict[str, Any]
FIELDS = {"bbox": "bbox", "segm": "segmentation"}
MOST_BYTES = 2_000_000_000  # JSON of a file; COCO's server has failed from 1.2 GB
SPLITS = {"coco": "test-dev2017", "lvis": "test_dev"}
_SHOWN = 20  # complaints of a file that are printed one by one


@dataclass(frozen=True)
class Server:
    """What a server wants.

    Attributes:
        name: File name without ending, with {split}, {algorithm} and {task}.
        limit: Detections that it scores in one group.
        per_class: Whether a group is a class of an image, or the image.
    """

    name: str
    limit: int
    per_class: bool

    @property
    def unit(self) -> str:
        """What a group is."""
        return "class and image" if self.per_class else "image"

    def group(self, entry: Detection) -> Any:
        """Name the group that an entry is counted in."""
        key = entry["image_id"]
        return (key, entry["category_id"]) if self.per_class else key


# COCO: cocodataset.org/#upload, the same name for boxes and masks, which go to two competitions.
# LVIS: the reference material names no rule; the name says what is inside.
SERVERS: Mapping[str, Server] = {
    "coco": Server("detections_{split}_{algorithm}_results", 100, True),
    "lvis": Server("lvis_v1_{split}_{algorithm}_{task}_results", 300, False),
}


class ImageList:
    """Images and categories of a test set, from its `image_info_*.json`.

    Args:
        file: The file.

    Attributes:
        sizes: Height and width of each image id.
        categories: Category ids.

    Raises:
        ValueError: If it is not such a file.
    """

    def __init__(self, file: Path) -> None:
        data = parse_json(file.read_bytes(), str(file))
        try:
            self.sizes = {one["id"]: (one["height"], one["width"]) for one in data["images"]}
            self.categories = {one["id"] for one in data["categories"]}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file} is not an image_info_*.json: {error!r}") from error
        numbers = [*self.sizes, *itertools.chain(*self.sizes.values()), *self.categories]
        if not self.sizes or not all(map(is_integer, numbers)):
            raise ValueError(f"{file} is not an image_info_*.json: ids and sizes must be integers")


def problem_of(entry: Any, images: ImageList, tasks: Sequence[str]) -> str | None:
    """Find out what is wrong with an entry."""
    if not isinstance(entry, dict):
        return f"is a {type(entry).__name__}, not an object"
    needed = ("image_id", "category_id", "score", *(FIELDS[task] for task in tasks))
    if missing := [name for name in needed if name not in entry]:
        return f"has no {', '.join(missing)}"
    for name, known in (("image_id", images.sizes), ("category_id", images.categories)):
        if not is_integer(entry[name]) or entry[name] not in known:
            return f"{name} {shown(entry[name])} is not in the image list"
    if not is_number(entry["score"]):
        return f"score {shown(entry['score'])} is not a finite number"
    height, width = images.sizes[entry["image_id"]]
    if "bbox" in tasks:
        box = entry["bbox"]
        if not is_box(box) or min(box[2:]) < 0:
            return f"bbox {shown(box)} is not [x, y, width, height] in finite numbers"
        if min(box[:2]) < -1 or box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1:
            return f"bbox {box} leaves the image of {width} x {height} px"
    if "segm" in tasks:
        mask = entry["segmentation"]
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
        yield f"holds {shown(entries)}, not a list of detections"
        return
    for index, entry in enumerate(entries):
        if problem := problem_of(entry, images, tasks):
            of = f" (image {shown(entry.get('image_id'))})" if isinstance(entry, dict) else ""
            yield f"entry {index}{of}: {problem}"


def check(file: Path, task: str, server_name: str, images: ImageList) -> Iterator[str]:
    """Yield what is wrong with a file that is to be sent, or its JSON before packing."""
    server = SERVERS[server_name]
    parts = {"split": r"[\w-]+", "algorithm": r".+", "task": task}
    if not re.fullmatch(server.name.format(**parts), file.stem):
        named = {"split": SPLITS[server_name], "algorithm": "ALGORITHM", "task": task}
        yield f"is named {file.name}, not {server.name.format(**named)}.zip"
    try:
        data = _unpacked(file) if file.suffix == ".zip" else file.read_bytes()
        entries = parse_json(data, "it")
    except ValueError as error:
        yield str(error)
        return
    problems = list(problems_of(entries, images, [task]))
    yield from problems
    if problems:
        return
    other = FIELDS["segm" if task == "bbox" else "bbox"]
    if both := sum(other in entry for entry in entries):
        yield f"{both} entries of this {task} file have {other}: the areas would be wrong"
    counts = Counter(map(server.group, entries))
    if over := [group for group, count in counts.items() if count > server.limit]:
        yield f"{len(over)} times more than {server.limit} of one {server.unit}: {over[0]}, ..."


def _unpacked(file: Path) -> bytes:
    """Read the JSON in a zip file; what is wrong with it is a ValueError."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if names != [f"{file.stem}.json"]:
                raise ValueError(f"holds {shown(', '.join(names))}, not {file.stem}.json alone")
            if (size := archive.getinfo(names[0]).file_size) > MOST_BYTES:
                raise ValueError(f"holds {size:,} bytes; the servers take {MOST_BYTES:,} at most")
            with archive.open(names[0]) as stream:
                return stream.read(MOST_BYTES)
    # what zipfile raises for damage, encryption and unknown compression
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"is not a zip file, or a damaged one ({error})") from error


def prepare(
    entries: Sequence[Detection], task: str, server: Server, *, budget: int
) -> tuple[list[bytes], list[str]]:
    """Choose, round and order the entries of one file."""
    groups: dict[Any, list[Detection]] = defaultdict(list)
    for entry in entries:
        groups[server.group(entry)].append(entry)
    chosen: list[Detection] = []
    for group in groups.values():
        chosen += sorted(group, key=lambda entry: -entry["score"])[: server.limit]
    notes = []
    if left := len(entries) - len(chosen):
        text = f"beyond {server.limit} of one {server.unit}, never scored"
        notes.append(f"{task}: left out {left} {text}")
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
    """Write NAME.zip with NAME.json at its top, completely or not at all."""
    with (
        replacing(file) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{file.stem}.json", "w", force_zip64=True) as member,
    ):
        member.write(b"[" + b",\n".join(lines) + b"]\n")


def _write(args: argparse.Namespace) -> int:
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
    split = args.split or SPLITS[args.server]
    files = {}
    for task in tasks:
        name = server.name.format(split=split, algorithm=args.algorithm, task=task)
        files[task] = args.output / task / f"{name}.zip"
        make_folder(files[task].parent)
    inputs = {"image list": args.images, "predictions": args.predictions}
    check_outputs([*files.values()], overwrite=args.overwrite, inputs=inputs)
    for task, file in files.items():
        lines, notes = prepare(entries, task, server, budget=round(args.max_mb * 1e6))
        write_zip(file, lines)
        say("\n".join([*notes, f"{file}: {len(lines)} detections"]))
        if not _report(file, check(file, task, args.server, images)):
            return 1
    covered = {entry["image_id"] for entry in entries}
    if len(covered) < len(images.sizes):
        say(f"{len(images.sizes) - len(covered)} of {len(images.sizes)} images have no detection")
    return 0


def _check(args: argparse.Namespace) -> int:
    """Run the command `check`; return the exit code."""
    if not _report(args.file, check(args.file, args.task, args.server, ImageList(args.images))):
        return 1
    say(f"{args.file}: nothing to complain about")
    return 0


def _report(file: Path, problems: Iterator[str]) -> bool:
    """Print the first problems and the number of the rest; return whether there is none."""
    count = 0
    for count, problem in enumerate(problems, start=1):
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
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
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
    text = "size of a file's JSON; 1200 MB have been too much for COCO's (default %(default)s)"
    add("--max-mb", type=number(0.001, 1_000_000), default=1000, help=text)
    add("--overwrite", action="store_true", help="replace earlier files")
    checking.add_argument("--task", required=True, choices=FIELDS)
    checking.add_argument("file", type=Path, help=".zip, or the .json before packing")
    return parser.parse_args(arguments)


def _run(args: argparse.Namespace) -> int:
    for name in ("images", "predictions", "file"):
        if path := getattr(args, name, None):
            require_regular_file(path)
    code: int = args.run(args)
    return code


main = program(parse, _run, name="eva detection submit")
