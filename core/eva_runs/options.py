"""Types for the options of `argparse`: numbers within limits, refused with one sentence.

    parser.add_argument("--workers", type=integer(0, 512))     # 0 to 512
    parser.add_argument("--port", type=integer(least=1))       # from 1, without an upper limit
    parser.add_argument("--tolerance", type=number(0))         # finite, from 0
    parser.add_argument("--score", type=probability)           # in [0, 1]

    add_download_option(parser)                                # --no-download
    add_check_options(parser, "images", skip="...")            # those of every check of data

A value outside ends the program as `argparse` does, with `argument --workers: must be at least 0,
got -1`; what is not a number at all with `must be an integer, got many`.
"""

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

N = TypeVar("N", int, float)
NO_DOWNLOAD = "EVA_NO_DOWNLOAD"  # read by eva_backbone.checkpoints, also in processes started later


def integer(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """Make the type of an option that is an integer within limits.

    Args:
        least: Smallest value; None for no limit.
        most: Largest value; None for no limit.

    Returns:
        A function for `type` of `argparse`.
    """

    def parse(text: str) -> int:
        value = _number(int, text, "an integer")
        _check_limits(value, text, least, most)
        return value

    return parse


def number(least: float | None = None, most: float | None = None) -> Callable[[str], float]:
    """Make the type of an option that is a finite number within limits.

    Args:
        least: Smallest value; None for no limit.
        most: Largest value; None for no limit.

    Returns:
        A function for `type` of `argparse`.
    """

    def parse(text: str) -> float:
        value = _number(float, text, "a number")
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
        _check_limits(value, text, least, most)
        return value

    return parse


def probability(text: str) -> float:
    """Parse a number in [0, 1]; for `type` of `argparse`."""
    value = _number(float, text, "a number")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return value


def _number(kind: Callable[[str], N], text: str, name: str) -> N:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {name}, got {text}") from None


def _check_limits(value: float, text: str, least: float | None, most: float | None) -> None:
    if least is not None and value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
    if most is not None and value > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, got {text}")


class _SetNoDownload(argparse.Action):
    def __call__(self, *_: Any) -> None:
        os.environ[NO_DOWNLOAD] = "1"


def add_download_option(parser: argparse.ArgumentParser) -> None:
    """Add `--no-download`: weights that are not on this machine are an error.

    It sets `EVA_NO_DOWNLOAD=1` for this process and those that it starts, and leaves no value among
    the parsed options.

    Args:
        parser: Parser that receives it.
    """
    parser.add_argument(
        "--no-download",
        action=_SetNoDownload,
        nargs=0,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help="weights that are not on this machine are an error: fetch nothing from the hub",
    )


def add_check_options(
    parser: argparse.ArgumentParser,
    what: str,
    *,
    skip: str,
    write: tuple[str, str] | None = None,
    report: str = "the findings, with more ids",
) -> None:
    """Add the options that checks of data share: outputs, and how files are read.

    Args:
        parser: Parser of a command.
        what: What the processes decode.
        skip: Help of `--skip-decode`.
        write: Placeholder and content of the file `--write`; None leaves the option out.
        report: Content of the file `--report`.
    """
    add = parser.add_argument
    if write is not None:
        add("--write", type=Path, metavar=write[0], help=f"also write {write[1]}")
    add("--report", type=Path, metavar="JSON", help=f"also write {report}")
    add("--overwrite", action="store_true", help="replace earlier outputs")
    add("--skip-decode", action="store_true", help=skip)
    add(
        "--workers",
        type=integer(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help=f"processes that decode {what} (default %(default)s)",
    )
