"""What the report of a segmentor says, and the tables beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.label_maps import described
from eva_openmmlab.report import RunReport
from eva_report.content import Confusion, Report, ScoreRow, ScoreTable, Section, Table
from eva_report.page import known, write_csv, write_results
from eva_segmentation.evaluation.gallery import galleries
from eva_segmentation.evaluation.metric import IoUAndConfusion

PER_CLASS, CONFUSION = "per_class.csv", "confusion.csv"
_OF_A_LAYER = r"decode\.d\d+\."  # losses of Mask2Former's single layers
_MEANINGS = {
    "mIoU": "mean over the classes of IoU: pixels that are of a class and were given it, among "
    "those that are of it or were given it",
    "mAcc": "mean over the classes of Acc: the share of a class's pixels that were given it",
    "aAcc": "share of all pixels that were given their class",
}


def make_report(run: RunReport) -> Report:
    """Write `results.json` and tables, and say what the page shows."""
    metric, dataset = run.metric(IoUAndConfusion), run.dataset
    names, colors, _ = described(dataset.metainfo) if dataset is not None else ([], [], [])
    names = [name.strip() for name in names]
    counts = None if metric is None else metric.confusion
    classes = [] if counts is None else class_scores(names, counts)
    if run.scores:
        each = {f"{name}-{one['class']}": one[name] for name in ("IoU", "Acc") for one in classes}
        write_results(run.folder, {"sem_seg": {**run.scores, **each}})
    sections: list[Section] = [_scores(run, classes)] if run.scores else []
    if classes:
        sections.append(_per_class(run.folder, classes))
    curves = dict(zip(_MEANINGS, _MEANINGS, strict=True))
    sections += run.curves(without=_OF_A_LAYER, scores="percent", shown=curves)
    if counts is not None:
        sections.append(_confusion(run.folder, names, counts))
        sections += galleries(run.runner.model, dataset, metric.images, names, colors)
    data = []
    if run.training_set is not None:
        data.append(("training data", f"{len(run.training_set):,} images"))
    if dataset is not None:
        pixels = "" if counts is None else f", {counts.sum():,} pixels with a label"
        data.append(("evaluation data", f"{len(dataset):,} images{pixels}, {len(names)} classes"))
    score = known(run.scores.get("mIoU"))
    scored = "nothing was scored" if score is None else f"mIoU {score:.1f}"
    return run.report("Segmentation", scored=scored, data=data, sections=sections)


def class_scores(names: Sequence[str], counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Score each class by what was taken for what.

    Args:
        names: Name of each class.
        counts: (K, K), pixels of each class (row) that were given each class (column).

    Returns:
        `class`, `IoU`, `Acc`, `share` (in percent) and `pixels` of each class; None where it has
        no pixel.
    """
    right, given, labelled = counts.diagonal(), counts.sum(0), counts.sum(1)
    union, total = given + labelled - right, max(1, int(labelled.sum()))

    def percent(some: NDArray[np.int64], of: NDArray[np.int64]) -> list[float | None]:
        return [100 * a / b if b else None for a, b in zip(some.tolist(), of.tolist(), strict=True)]

    columns = percent(right, union), percent(right, labelled), labelled.tolist()
    return [
        {"class": name, "IoU": iou, "Acc": acc, "share": 100 * pixels / total, "pixels": pixels}
        for name, iou, acc, pixels in zip(names, *columns, strict=True)
    ]


def _scores(run: RunReport, classes: Sequence[Mapping[str, Any]]) -> ScoreTable:
    order = dict.fromkeys([*_MEANINGS, *run.scores])
    rows = [
        ScoreRow(name=name, values=[known(run.scores[name])], meaning=_MEANINGS.get(name, ""))
        for name in order
        if name in run.scores
    ]
    text = "Percent of pixels with a label."
    if absent := [one["class"] for one in classes if one["IoU"] is None]:
        shown = ", ".join(absent[:5]) + (", ..." if absent[5:] else "")
        text += (
            f" {len(absent)} of {len(classes)} classes ({shown}) have no pixel in the labels or "
            "the predictions: they have no score, and no part in the means."
        )
    return ScoreTable(title="Scores", columns=["%"], rows=rows, text=text)


def _per_class(folder: Path, classes: Sequence[Mapping[str, Any]]) -> Table:
    heads = ["class", "IoU", "Acc", "share", "pixels"]
    rows = [[one[head] for head in heads] for one in classes]
    write_csv(folder / PER_CLASS, heads, rows)
    return Table(
        title="Classes",
        heads=["class", "IoU", "Acc", "share of the pixels", "pixels"],
        rows=sorted(rows, key=lambda row: (row[1] is None, row[1])),
        text="The lowest IoU first, in percent. A dash: the class is not in the labels (Acc), nor "
        "in the predictions (IoU).",
        complete_in=PER_CLASS,
    )


def _confusion(folder: Path, names: Sequence[str], counts: NDArray[np.int64]) -> Confusion:
    rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
    write_csv(folder / CONFUSION, ["class", *names], rows)
    return Confusion(
        title="Confusion",
        classes=list(names),
        counts=counts,
        unit="pixels",
        text="Pixels with a label, by their class and the class that they were given.",
        complete_in=CONFUSION,
    )
