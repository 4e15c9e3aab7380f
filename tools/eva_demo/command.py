"""The command that makes the demo data: digits in the formats that the toolkit reads.

    python tools/make_demo_data.py --output data/demo --formats coco yolo voc
    python tools/make_demo_data.py --output data/motions --formats video
    python tools/make_demo_data.py --output data/captioned --formats captions

A scene stands for a clip, or for three images with captions; these have half of its side.

The same seed and sizes give the same bytes, with any number of workers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from eva_runs.commands import Command, lazy_import
from eva_runs.options import command_parser, integer

_FORMATS = (
    *("bands", "captions", "coco", "folder", "keypoints", "panoptic", "semantic", "video", "voc"),
    "yolo",
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--formats", nargs="+", choices=_FORMATS, default=["coco"], help="default: coco")
    for name, least, usual, help_text in (
        ("train", 1, 2000, "training scenes"),
        ("val", 1, 300, "validation scenes"),
        ("size", 48, 128, "side of a scene in pixels"),
        ("seed", 0, 0, "seed of all of them"),
        ("workers", 1, 2, "processes; any number makes the same bytes"),
    ):
        help_text = f"{help_text} (default: {usual})"
        add(f"--{name}", type=integer(least), default=usual, metavar="N", help=help_text)
    add("--overwrite", action="store_true", help="replace another dataset")
    return parser.parse_args(arguments)


main = Command("eva data make-demo", parse, lazy_import("eva_demo.data_set:run"))
