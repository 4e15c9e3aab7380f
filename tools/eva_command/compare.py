"""`eva compare`: two runs on the same samples, and whether their difference is more than chance."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from eva_report.comparison import CONFIDENCE, compare
from eva_report.terminal import align_columns
from eva_runs.commands import Command, Result, echo
from eva_runs.options import command_parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        "Compare the last evaluations of two runs of detection, segmentation or classification, "
        "or their evaluations of the same data, with paired bootstrap intervals.",
        prog="eva compare",
    )
    parser.add_argument("first", type=Path, metavar="RUN", help="folder of a run or evaluation")
    parser.add_argument("second", type=Path, metavar="RUN", help="another, of the same data")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    options = parser.parse_args(arguments)
    if options.draws < 1:
        parser.error(f"--draws {options.draws} must be at least 1")
    return options


def _compare(options: argparse.Namespace) -> Result:
    comparisons = compare(options.first, options.second, draws=options.draws, seed=options.seed)
    heads = ["score", "first", "second", "difference", f"{CONFIDENCE:.0%} interval", ""]
    lines = [heads]
    for entry in comparisons:
        interval = f"{entry.low:+.2f} to {entry.high:+.2f}"
        difference = f"{entry.second - entry.first:+.2f}"
        clear = "" if entry.is_clear else "may be chance"
        values = [f"{value:.2f}" for value in (entry.first, entry.second)]
        lines.append([entry.metric, *values, difference, interval, clear])
    echo(align_columns(lines))
    return Result([asdict(entry) for entry in comparisons])


main = Command("eva compare", _parse, _compare)
