r"""Turn COCO-Stuff-164K's published label maps into those that the segmentor is trained on.

    eva data prepare-segmentation coco-stuff --maps stuffthingmaps/train2017 \
        --output data/coco_stuff164k/annotations/train2017
    eva data prepare-segmentation coco-stuff --maps stuffthingmaps/val2017 \
        --output data/coco_stuff164k/annotations/val2017

Published pixels hold 0 to 181, of which 11 numbers are never used, and 255 for unlabelled; wanted
are 0 to 170 and 255, in files NAME_labelTrainIds.png. Maps that are there are left alone, so a run
that was interrupted continues. ADE20K needs no such step. Afterwards, for both datasets:

    eva data verify semantic --layout coco-stuff --root data/coco_stuff164k
"""

import argparse
import functools
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from eva_data.files import make_folder, replace_file
from eva_data.label_maps import IGNORED, LabelTable, read_label_map
from eva_data.pools import ordered_map
from eva_runs.commands import Command, echo
from eva_runs.errors import print_error
from eva_runs.options import command_parser, integer

# Numbers of COCO's categories without a single object, minus 1 as in the pixel maps.
_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
LABELS = tuple(label for label in range(182) if label not in _UNUSED)  # in the order of the classes
_ENDING = "_labelTrainIds.png"


def convert(source: Path, *, output: Path) -> str:
    """Convert a published map, completely or not at all; return an error or an empty text."""
    target = output / f"{source.stem}{_ENDING}"
    try:
        indices = LabelTable(LABELS, (IGNORED,))(read_label_map(source), source)
    except ValueError as error:
        return str(error)
    with replace_file(target) as part:
        Image.fromarray(indices).save(part, format="PNG")
    return ""


def convert_all(maps: Path, output: Path, *, workers: int) -> tuple[int, int, list[str]]:
    """Convert the published maps of a folder that are not there yet.

    Returns:
        Number of maps that were there before, number of maps written, and errors.
    """
    files = (path for path in sorted(maps.glob("*.png")) if path.is_file())
    sources = [path for path in files if not path.name.endswith(_ENDING)]
    if not sources:
        raise ValueError(f"{maps} holds no .png of the published label maps")
    make_folder(output)
    existing = {path.name for path in output.glob(f"*{_ENDING}")}
    todo = [path for path in sources if f"{path.stem}{_ENDING}" not in existing]
    work = functools.partial(convert, output=output)
    results = ordered_map(work, todo, workers=workers, title="maps")
    problems = [problem for problem in results if problem]
    return len(sources) - len(todo), len(todo) - len(problems), problems


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("coco-stuff", help="label maps of COCO-Stuff-164K")
    add = command.add_argument
    add("--maps", required=True, type=Path, metavar="DIR", help="published maps, NAME.png")
    add("--output", required=True, type=Path, metavar="DIR", help="folder to write to")
    add("--workers", type=integer(1), default=os.cpu_count() or 1, metavar="N", help="processes")
    return parser.parse_args(arguments)


def _run(args: argparse.Namespace) -> int:
    before, written, problems = convert_all(args.maps, args.output, workers=args.workers)
    for problem in problems[:20]:
        print_error(problem)
    already = f", {before:,} were there" if before else ""
    failed = f", {len(problems):,} could not be converted" if problems else ""
    echo(f"{args.output}: wrote {written:,} label maps{already}{failed}")
    return 1 if problems else 0


main = Command(
    "eva data prepare-segmentation", parse, _run, interrupted="the same command continues"
)
