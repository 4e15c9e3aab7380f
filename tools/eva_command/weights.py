"""`eva weights`, the official files, and `eva push`, which publishes those of a run."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from eva_backbone.checkpoints.hub import DEFAULT_FILE
from eva_backbone.checkpoints.registry import (
    HOSTED_FILES,
    OFFICIAL_FILES,
    SHA256,
    TASKS,
    find_official_file,
    list_official_files,
    resolve_source,
    verify_sha256,
    weights_directories,
)
from eva_runs.commands import Command, Result, echo, lazy_import
from eva_runs.errors import print_error
from eva_runs.options import add_download_option, command_parser


def _parse_list(arguments: Sequence[str]) -> argparse.Namespace:
    description = """List the official files, where they are on this machine, and the weights of
other plain ViTs, as timm hosts them, with their licences."""
    parser = command_parser(description)
    parser.add_argument("task", nargs="?", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    return parser.parse_args(arguments)


def _list(options: argparse.Namespace) -> int:
    entries = list_official_files(options.task)
    width, rows = max(len(entry.name) for entry in entries), list[dict[str, object]]()
    for entry in entries:
        size = f"{entry.size_gb:g} GB"
        path = _place(entry.name)
        folder = "-" if path is None else str(path.parent)
        left = f"{entry.name:<{width}}  {entry.task:<14}  {size:>7}"
        echo(f"{left}  {folder:<12}  {entry.result}".rstrip())
        rows.append({**vars(entry), "file": path})
    echo(f"searched: {', '.join(map(str, weights_directories()))} ($EVA_WEIGHTS names a folder)")
    for hosted in HOSTED_FILES.values() if options.task in (None, "pretrain") else ():
        size = f"{hosted.size_gb:g} GB"
        echo(f"{hosted.name:<{width}}  {size:>8}  {hosted.licence:<25}  {hosted.repository}")
        rows.append({**vars(hosted), "licence": hosted.licence})
    return Result(rows)


list_command = Command("eva weights list", _parse_list, _list)


def _parse_get(arguments: Sequence[str]) -> argparse.Namespace:
    description = """Find weights as every command does, fetch them where that is needed and
allowed, and print their paths."""
    parser = command_parser(description)
    name_help = "name that `list` shows, or hf://ORG/NAME/FILE"
    parser.add_argument("names", nargs="+", metavar="NAME", help=name_help)
    add_download_option(parser)
    return parser.parse_args(arguments)


def _get(options: argparse.Namespace) -> int:
    for name in options.names:
        echo(str(resolve_source(name)))
    return 0


get_command = Command("eva weights get", _parse_get, _get)


def _parse_verify(arguments: Sequence[str]) -> argparse.Namespace:
    description = """Read official files again and compare their SHA-256 with the recorded one. Exit
code: 1 if a file differs or is missing."""
    parser = command_parser(description)
    name_help = "names or paths (default: all that are here)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=name_help)
    return parser.parse_args(arguments)


def _verify(options: argparse.Namespace) -> int:
    names = options.names or [entry.name for entry in OFFICIAL_FILES if _place(entry.name)]
    if not names:
        echo("no official file is here; `eva weights list` says where they are searched")
    wrong = 0
    for name in names:
        official = find_official_file(Path(name).name)
        file = Path(name) if Path(name).is_file() else _place(official.name) or Path(name)
        try:
            verify_sha256(file, SHA256[official.name])
            echo(f"{file}: is the official file")
        except (OSError, ValueError) as error:
            print_error(str(error))
            wrong = 1
    return wrong


verify_command = Command("eva weights verify", _parse_verify, _verify)


def _place(name: str) -> Path | None:
    candidates = [folder / name for folder in weights_directories()]
    return next((path for path in candidates if path.is_file()), None)


_PUSH = """Publish a run on the Hugging Face hub: weights, model card, settings and scores.

    eva push output/coco someone/eva-coco --dry-run output/card   # look at it first
    eva push output/coco someone/eva-coco --private

RUN is the output folder of any training of this toolkit. The last weights are published, unless
--best is given. Published are `model.safetensors`, without states of the optimizer; `README.md`,
the model card; the settings of the run; `results.json`. Of the settings only numbers, names of
classes, parts and known datasets are published; paths, addresses and free text are left out. Needs
`pip install eva-toolkit[hub]` and a token of the hub (`hf auth login`, or HF_TOKEN).
"""
FILES = (DEFAULT_FILE, "README.md", "results.json", "recipe.json", "config.yaml", "config.py")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def _parse_push(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(_PUSH)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="output folder of a training")
    add("repository", metavar="ORG/NAME", help="repository on the hub; made if it is not there")
    add("--private", action="store_true", help="make the repository private")
    add("--dry-run", type=Path, metavar="DIR", help="write everything there and upload nothing")
    add("--overwrite", action="store_true", help="replace an earlier DIR")
    add("--best", action="store_true", help="weights of the best evaluation, not the last ones")
    add("--ema", action="store_true", help="the moving average of the weights")
    add(
        "--include",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="publish this file too, as it is",
    )
    add("--licence", default="mit", help="licence of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    if not _REPOSITORY.fullmatch(options.repository):
        parser.error(f"{options.repository!r} is not of the form ORG/NAME")
    taken = [file for file in options.include if file.name in FILES or not file.is_file()]
    if taken:
        parser.error(f"--include {taken[0]}: there is no such file, or push writes one of its name")
    return options


push_command = Command(
    "eva push",
    _parse_push,
    lazy_import("eva_command.publishing:push"),
    interrupted="nothing was published",
)
