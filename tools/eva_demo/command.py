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

from eva_runs.commands import program, say
from eva_runs.options import integer

_FORMATS = ("captions", "coco", "folder", "semantic", "video", "voc", "yolo")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Make the demo data: handwritten digits on photographs. No download.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--formats", nargs="+", choices=_FORMATS, default=["coco"], help="what to write")
    add("--train", type=integer(1), default=2000, metavar="N", help="training scenes")
    add("--val", type=integer(1), default=300, metavar="N", help="validation scenes")
    add("--size", type=integer(48), default=128, metavar="PX", help="side of a scene")
    add("--seed", type=integer(0), default=0, metavar="N", help="seed of all of them")
    add("--workers", type=integer(1), default=2, metavar="N", help="processes; same bytes")
    add("--overwrite", action="store_true", help="replace another or damaged dataset")
    return parser.parse_args(arguments)


def _run(args: argparse.Namespace) -> int:
    from eva_demo.data_set import Settings, make_demo_data  # libraries that --help does not need

    sizes = {name: getattr(args, name) for name in ("train", "val", "size", "seed")}
    settings = Settings(formats=tuple(sorted(set(args.formats))), **sizes)
    if make_demo_data(args.output, settings, workers=args.workers, overwrite=args.overwrite):
        say(f"{args.output}: wrote {args.train} + {args.val} scenes")
    else:
        say(f"{args.output}: already there, complete, with these settings; left as it is")
    return 0


main = program(parse, _run, refused=1)
