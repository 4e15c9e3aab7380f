"""`eva weights`: the official files, where they are, and whether they are the official ones."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_backbone.checkpoints.registry import (
    OFFICIAL_FILES,
    SHA256,
    TASKS,
    find_official_file,
    list_official_files,
    resolve_source,
    verify_sha256,
    weights_directories,
)
from eva_data.files import hand_over
from eva_runs.commands import complain, program, say
from eva_runs.options import add_download_option, command_parser


def _parse_list(arguments: Sequence[str] | None) -> argparse.Namespace:
    text = "List the official files and where they are on this machine."
    parser = command_parser(text)
    parser.add_argument("task", nargs="?", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    return parser.parse_args(arguments)


def _list(options: argparse.Namespace) -> int:
    chosen = list_official_files(options.task)
    width, found = max(len(entry.name) for entry in chosen), list[dict[str, object]]()
    for entry in chosen:
        size = f"{entry.size_gb:g} GB"
        place = _place(entry.name)
        here = "-" if place is None else str(place.parent)
        left = f"{entry.name:<{width}}  {entry.task:<14}  {size:>7}"
        say(f"{left}  {here:<12}  {entry.result}".rstrip())
        found.append({**vars(entry), "file": place})
    say(f"searched: {', '.join(map(str, weights_directories()))} ($EVA_WEIGHTS names a folder)")
    hand_over(found)
    return 0


list_command = program(_parse_list, _list)


def _parse_get(arguments: Sequence[str] | None) -> argparse.Namespace:
    text = """Find weights as every command does, fetch them where that is needed and allowed, and
print their paths."""
    parser = command_parser(text)
    what = "name that `list` shows, or hf://ORG/NAME/FILE"
    parser.add_argument("names", nargs="+", metavar="NAME", help=what)
    add_download_option(parser)
    return parser.parse_args(arguments)


def _get(options: argparse.Namespace) -> int:
    for name in options.names:
        say(str(resolve_source(name)))
    return 0


get_command = program(_parse_get, _get, refused=1)


def _parse_verify(arguments: Sequence[str] | None) -> argparse.Namespace:
    text = """Read official files again and compare their SHA-256 with the recorded one. Exit code:
1 if a file differs or is missing."""
    parser = command_parser(text)
    what = "names or paths (default: all that are here)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=what)
    return parser.parse_args(arguments)


def _verify(options: argparse.Namespace) -> int:
    names = options.names or [one.name for one in OFFICIAL_FILES if _place(one.name)]
    if not names:
        say("no official file is here; `eva weights list` says where they are searched")
    wrong = 0
    for name in names:
        official = find_official_file(Path(name).name)
        file = Path(name) if Path(name).is_file() else _place(official.name) or Path(name)
        try:
            verify_sha256(file, SHA256[official.name])
            say(f"{file}: is the official file")
        except (OSError, ValueError) as error:
            complain(str(error))
            wrong = 1
    return wrong


verify_command = program(_parse_verify, _verify, refused=1)


def _place(name: str) -> Path | None:
    places = [folder / name for folder in weights_directories()]
    return next((place for place in places if place.is_file()), None)
