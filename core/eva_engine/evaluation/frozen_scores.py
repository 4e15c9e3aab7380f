"""Scores of a check with frozen features, for the command of any project.

Shapes: N labelled features to learn from, M to score on, C channels.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from eva_engine.commands.options import choose_device
from eva_engine.evaluation.counting import Score
from eva_engine.evaluation.frozen import fit_best_linear, nearest_neighbours
from eva_engine.evaluation.report import write_evaluation_report
from eva_engine.evaluation.reports import say_end, table, write_results
from eva_engine.evaluation.rules import OneLabel
from eva_report.content import Section


def score_frozen(
    options: argparse.Namespace,
    features: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    *,
    classes: int,
    receive: Callable[[Tensor], None] | None = None,
) -> tuple[dict[str, Score], dict[str, Any]]:
    """Score nearest neighbours and the linear classifier.

    Args:
        options: Options of `eva_engine.evaluation.frozen_options.add_frozen`.
        features: (N, C).
        labels: (N,).
        queries: (M, C).
        truth: (M,), their labels.
        classes: Number of classes.
        receive: Function that is given the logits (M, K) of each method, the best one last.

    Returns:
        Method -> score, and the settings that were chosen.
    """
    scores, chosen = {}, {}
    for k in options.neighbours:
        votes = nearest_neighbours(features, labels, queries, k=k, classes=classes)
        logits = (votes + 1e-12).log()
        scores[f"{k} neighbours"] = score_of(logits, truth)
        if receive is not None:
            receive(logits)
    if options.l2:
        linear = fit_best_linear(features, labels, classes=classes, candidates=options.l2)
        logits = linear(queries)
        scores["linear"] = score_of(logits, truth)
        if receive is not None:
            receive(logits)
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
    began: float,
    unit: str = "images",
    sections: Sequence[Section] = (),
) -> None:
    """Print a table, and write `results.json` and `report.html` to the output, if there is one.

    Args:
        options: Options of `eva_engine.evaluation.frozen_options.add_frozen`, and `weights`.
        title: Line above the table.
        settings: Further settings of the check.
        scores: Method -> score.
        began: Time of `time.monotonic` at the start of the check.
        unit: Name of the samples.
        sections: Sections of the report behind the scores.
    """
    given = {name: str(getattr(options, name)) for name in ("weights", "train", "val")}
    page = None
    if options.output is not None:
        device = choose_device(options.device)
        write_results(options.output, given | dict(settings), scores, unit=unit)
        page = write_evaluation_report(
            options.output, scores, task="Frozen features", weights=options.weights,
            data=[(use, str(getattr(options, use))) for use in ("train", "val")],
            settings=settings, unit=unit, sections=lambda: sections, device=device.type,
        )  # fmt: skip
    say_end(f"{title}\n{table(scores, unit=unit)}", began=began, report=page)
