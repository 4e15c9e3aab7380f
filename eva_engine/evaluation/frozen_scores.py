"""Options and scores of a check with frozen features, for the command of any project.

Shapes: N labelled features to learn from, M to score on, C channels.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from eva_data.options import integer, number
from eva_engine.evaluation.counting import Score
from eva_engine.evaluation.frozen import L2, fit_best_linear, nearest_neighbours
from eva_engine.evaluation.reports import table, write_results
from eva_engine.evaluation.rules import OneLabel

NEIGHBOURS = [10, 20]


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
    add("--output", type=Path, help="folder of results.json")


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


def score_frozen(
    options: argparse.Namespace,
    features: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    *,
    classes: int,
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Score nearest neighbours and the linear classifier.

    Args:
        options: Options of `add_frozen`.
        features: (N, C).
        labels: (N,).
        queries: (M, C).
        truth: (M,), their labels.
        classes: Number of classes.

    Returns:
        Method -> score, and the settings that were chosen.
    """
    scores, chosen = {}, {}
    for k in options.neighbours:
        votes = nearest_neighbours(features, labels, queries, k=k, classes=classes)
        scores[f"{k} neighbours"] = score_of((votes + 1e-12).log(), truth)
    if options.l2:
        linear = fit_best_linear(features, labels, classes=classes, candidates=options.l2)
        scores["linear"] = score_of(linear(queries), truth)
        chosen["l2"] = linear.l2
    return scores, chosen


def score_of(logits: Tensor, labels: Tensor) -> Score:
    """Score logits (M, K) against labels (M,)."""
    judged = OneLabel()(logits, labels, labels)
    return Score(
        samples=len(labels),
        right1=int(judged.top1.sum()),
        right5=int(judged.top5.sum()),
        loss=float(judged.loss.mean()),
    )


def report_frozen(
    options: argparse.Namespace,
    title: str,
    settings: Mapping[str, Any],
    scores: Mapping[str, Score],
    *,
    unit: str = "images",
) -> None:
    """Print a table, and write `results.json` to the output, if there is one.

    Args:
        options: Options of `add_frozen`, and `weights`.
        title: Line above the table.
        settings: Further settings of the check.
        scores: Method -> score.
        unit: Name of the samples.
    """
    given = {name: str(getattr(options, name)) for name in ("weights", "train", "val")}
    sys.stdout.write(f"{title}\n{table(scores, unit=unit)}\n")
    if options.output is not None:
        file = write_results(options.output, given | dict(settings), scores, unit=unit)
        sys.stdout.write(f"wrote {file}\n")
