r"""Turns COCO-Stuff-164K's published label maps into those that the segmentor is trained on.

    python tools/prepare_segmentation.py coco-stuff --maps stuffthingmaps/train2017 \
        --output data/coco_stuff164k/annotations/train2017
    python tools/prepare_segmentation.py coco-stuff --maps stuffthingmaps/val2017 \
        --output data/coco_stuff164k/annotations/val2017

Published pixels hold 0 to 181, of which 11 numbers are never used, and 255 for unlabelled; wanted
are 0 to 170 and 255, in files NAME_labelTrainIds.png. Maps that are there are left alone, so a run
that was interrupted continues. ADE20K needs no such step. Afterwards, for both data sets:

    python tools/verify_data.py semantic --layout coco-stuff --root data/coco_stuff164k
"""

import argparse
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from findings import progress

from eva_data.files import make_folder, replacing
from eva_segmentation.data.label_maps import IGNORED, LabelTable, read_label_map

# Numbers of COCO's categories without a single object, less 1 as in the pixel maps.
UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
LABELS = tuple(label for label in range(182) if label not in UNUSED)  # in the order of the classes
ENDING = "_labelTrainIds.png"


def convert(source: Path, *, output: Path) -> str:
    """Converts one map; it appears when it is complete.

    Args:
        source: published map, NAME.png.
        output: folder for NAME_labelTrainIds.png.

    Returns:
        A complaint, or nothing.
    """
    from PIL import Image

    target = output / f"{source.stem}{ENDING}"
    try:
        indices = LabelTable(LABELS, (IGNORED,))(read_label_map(source), source)
    except ValueError as error:
        return str(error)
    with replacing(target) as part:
        Image.fromarray(indices).save(part, format="PNG")
    return ""


def convert_all(maps: Path, output: Path, *, workers: int) -> tuple[int, int, list[str]]:
    """Converts the maps of a folder that are not there yet.

    Args:
        maps: folder of published maps.
        output: folder to write to; made if needed.
        workers: number of processes.

    Returns:
        How many were there before, how many were written, and complaints.

    Raises:
        ValueError: if the folder holds no published maps, or a process dies.
    """
    files = (path for path in sorted(maps.glob("*.png")) if path.is_file())
    sources = [path for path in files if not path.name.endswith(ENDING)]
    if not sources:
        raise ValueError(f"{maps} holds no .png of the published label maps")
    make_folder(output)
    there = {path.name for path in output.glob(f"*{ENDING}")}
    todo = [path for path in sources if f"{path.stem}{ENDING}" not in there]
    work = functools.partial(convert, output=output)
    if workers == 1 or len(todo) < 2:
        results = [work(path) for path in progress(todo, total=len(todo), what="maps")]
    else:
        # Not fork: the caller may hold threads.
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_ignore_interrupt)
        try:
            found = pool.map(work, todo, chunksize=32)
            results = list(progress(found, total=len(todo), what="maps"))
        except BrokenProcessPool as error:
            raise ValueError(f"one of {workers} processes died; give fewer --workers") from error
        finally:
            pool.shutdown(cancel_futures=True)
    problems = [problem for problem in results if problem]
    return len(sources) - len(todo), len(todo) - len(problems), problems


def _ignore_interrupt() -> None:
    """Leaves Ctrl-C to the parent process, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("coco-stuff", help="label maps of COCO-Stuff-164K")
    add = command.add_argument
    add("--maps", required=True, type=Path, metavar="DIR", help="published maps, NAME.png")
    add("--output", required=True, type=Path, metavar="DIR", help="folder to write to")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error(f"--workers must be at least 1, got {args.workers}")
    if not args.maps.is_dir():
        parser.error(f"there is no folder {args.maps}")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    try:
        before, written, problems = convert_all(args.maps, args.output, workers=args.workers)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    for problem in problems[:20]:
        print(problem, file=sys.stderr)
    already = f", {before:,} were there" if before else ""
    failed = f", {len(problems):,} could not be converted" if problems else ""
    print(f"{args.output}: wrote {written:,} label maps{already}{failed}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
