"""Options of a check with frozen features, for the command of any project; limit of bad samples."""

import argparse
import sys
from pathlib import Path

from eva_runs.options import integer, number

NEIGHBOURS = [10, 20]
MAX_BAD_SAMPLES = 100  # as in a training
L2 = (1e-4, 1e-3, 1e-2, 1e-1)  # penalties of the linear classifier


def add_frozen(parser: argparse.ArgumentParser, *, data: str, unit: str = "images") -> None:
    """Add the options of what is learned from, scored on, and by which methods.

    Args:
        parser: Parser that receives them.
        data: Forms of data that the command takes, for the help.
        unit: Name of the samples.
    """
    add = parser.add_argument
    add("--train", required=True, help=data)
    add("--val", required=True, help="the same to score on")
    one = integer(1)
    add(f"--train-{unit}", dest="limit", type=one, metavar="N",
        help=f"{unit} to learn from, chosen at random (default: all)")  # fmt: skip
    add(
        "--neighbours",
        type=one,
        nargs="*",
        default=NEIGHBOURS,
        help="default: 10 20, or what there is; none: skip",
    )
    add("--l2", type=number(0), nargs="*", default=list(L2), help="penalties to try; none: skip")
    add_max_bad_samples(parser, unit=unit)
    add("--output", type=Path, help="folder of results.json")


def add_max_bad_samples(parser: argparse.ArgumentParser, *, unit: str = "images") -> None:
    """Add `--max-bad-samples`, `MAX_BAD_SAMPLES` by default.

    Args:
        parser: Parser that receives it.
        unit: Name of the samples.
    """
    parser.add_argument(
        "--max-bad-samples",
        type=integer(0),
        default=MAX_BAD_SAMPLES,
        metavar="N",
        help=f"{unit} that may be left out because they cannot be read (default: %(default)s)",
    )


def check_frozen(options: argparse.Namespace, known: int) -> int:
    """Check the methods against the data, before anything is computed.

    Args:
        options: Options of `add_frozen`.
        known: Number of samples in `--train`.

    Returns:
        Number of samples to learn from.

    Raises:
        ValueError: If there are fewer of them than neighbours.
    """
    known = min(known, options.limit or known)
    if options.neighbours is NEIGHBOURS:
        options.neighbours = [k for k in NEIGHBOURS if k <= known] or [known]
    if options.neighbours and max(options.neighbours) > known:
        raise ValueError(
            f"--neighbours {max(options.neighbours)}, but there are {known} samples to learn from"
        )
    if options.train == options.val:
        sys.stderr.write(f"{options.train} is scored on itself: the scores say little\n")
    return known
