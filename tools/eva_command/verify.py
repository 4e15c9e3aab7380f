"""The command `eva data verify`: check a dataset before training on it."""

import argparse
import inspect
import io
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from eva_data.classes import ALLOW_EMPTY
from eva_runs.commands import Command, lazy_import
from eva_runs.errors import print_error
from eva_runs.options import add_check_options, command_parser, integer

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


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; a path in place of a check's name stands for the one that fits."""
    if arguments and arguments[0] not in _CHECKS and not arguments[0].startswith("-"):
        arguments = lazy_import("eva_command.data_forms:guess_check")(arguments)
        print_error(f"checked as: {shlex.join(arguments)}")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    return parse(arguments)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line that begins with the name of a check."""
    parser = command_parser(_ABOUT)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (help_text, add) in _CHECKS.items():
        command = subparsers.add_parser(
            name, help=help_text, formatter_class=parser.formatter_class
        )
        if name == next(iter(arguments), None):
            command.description = inspect.getdoc(add)
            add(command)
    return parser.parse_args(arguments)


# exits with 0 without problems, with 1 with some
main = Command(
    "eva data verify",
    _parse,
    lazy_import("eva_command.checking:run"),
    error_code=2,
    interrupted="only complete files were written",
)


def _add_bands(parser: argparse.ArgumentParser) -> None:
    help_text = "images have so many bands, of finite values (docs/bands.md)"
    parser.add_argument("--bands", type=integer(1, 32), metavar="N", help=help_text)


def _add_coco(parser: argparse.ArgumentParser) -> None:
    """Check objects: every error that training would raise, and every image.

    The entire file is held in memory, as COCO's own reader does: about 1.1 kB for a box, so 28 GB
    for Objects365 v2. What training refuses is left out of what is written.
    """
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--annotations", type=Path, metavar="JSON", help="file in COCO's format")
    help_text = "data.yaml of YOLO, folder of Pascal VOC, CSV of boxes, or folder of a COCO export"
    source.add_argument("--data", type=Path, metavar="PATH", help=help_text)
    add("--images", type=Path, metavar="DIR", help="image folder of --annotations")
    add("--boxes-only", action="store_true", help="leave masks alone, of the cleaned file too")
    add(ALLOW_EMPTY, action="store_true", help="classes without an object are no problem")
    _add_bands(parser)
    add_check_options(
        parser,
        "images",
        skip="read the headers of images only",
        write=("JSON", "a COCO file without the problems; with --data a folder of such files"),
    )


def _add_semantic(parser: argparse.ArgumentParser) -> None:
    """Check images and label maps: what training would refuse, and pixels of each class."""
    add = parser.add_argument
    add("--layout", choices=("ade20k", "coco-stuff"), help="a public dataset below --root")
    add("--root", type=Path, metavar="DIR", help="folder of the dataset of --layout")
    add("--images", type=Path, metavar="DIR", help="own images")
    add("--maps", type=Path, metavar="DIR", help="own label maps, of the same names")
    add("--val-images", type=Path, metavar="DIR", help="own images for validation")
    add("--val-maps", type=Path, metavar="DIR", help="own label maps for validation")
    help_text = "names and labels of own classes (default: classes.toml above the folders)"
    add("--classes", type=Path, metavar="TOML", help=help_text)
    add(ALLOW_EMPTY, action="store_true", help="classes that no pixel is of are no problem")
    _add_bands(parser)
    add_check_options(
        parser,
        "files",
        skip="read headers of images only, and all of the maps",
        report="findings and counts of all classes",
    )


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
    help_text = "TOML file that lists folders and shards; or a folder, which is only checked"
    parser.add_argument("location", metavar="MANIFEST", help=help_text)
    parser.add_argument("--root", metavar="DIR", help="folder of relative paths")
    _add_manifest_options(parser, "images")


def _add_manifest_options(parser: argparse.ArgumentParser, content: str) -> None:
    add_check_options(
        parser,
        "images",
        skip=f"list the {content} without reading them",
        write=("INDEX", f"an index of the readable {content}, a .safetensors file"),
    )


def _add_folders(parser: argparse.ArgumentParser) -> None:
    """Check folders of images, as they are: of classes, of training and validation, or of nothing.

    Every image is decoded. Folders directly below are classes, unless the only ones are `train` and
    `val` (or `valid`, `test`), which are then compared. Copies are files of the same content.
    """
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of images or of folders of classes")
    add("--against", type=Path, metavar="FOLDER", help="the other part, such as for validation")
    _add_bands(parser)
    add_check_options(parser, "images", skip="read the headers of images only")


def _add_video(parser: argparse.ArgumentParser) -> None:
    """Check videos for action recognition, and write a clean list and an index of them.

    Every video is opened, its frames are counted, and the first, the middle and the last are
    decoded. Those that fail, further copies of one content, and those that --against holds too are
    left out of what is written.
    """
    add = parser.add_argument
    add("location", metavar="LOCATION", help="folder, list, shards or index of labelled videos")
    add("--root", type=Path, metavar="DIR", help="folder of relative paths, or of the ids' files")
    add("--classes", type=Path, metavar="FILE", help="names of the classes, one in each line")
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


_CHECKS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "captions": ("images with captions, and their index", _add_captions),
    "coco": ("objects of COCO, LVIS, YOLO, Pascal VOC or tables, and a clean file", _add_coco),
    "folders": ("folders of images, of classes or without", _add_folders),
    "images": ("the images of pre-training, and their index", _add_images),
    "semantic": ("images and maps for semantic segmentation", _add_semantic),
    "video": ("videos for action recognition, and their clean list", _add_video),
}
