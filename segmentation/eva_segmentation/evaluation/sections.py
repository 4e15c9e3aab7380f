"""What the report of a segmentor says and shows, and the tables beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from numpy.typing import NDArray
from PIL import Image

from eva_data.bands import Bands, draw_pixels, read_pixels
from eva_data.label_maps import IGNORED, describe_classes
from eva_openmmlab.data_parallel import unwrap
from eva_openmmlab.images import bands_of
from eva_openmmlab.report import RunReport
from eva_report.comparison import write_areas
from eva_report.content import (
    Confusion,
    Example,
    Gallery,
    Report,
    ScoreRow,
    ScoreTable,
    Section,
    Table,
    TitledImage,
    warn_of_few,
)
from eva_report.drawing import Color, overlay
from eva_report.page import finite_or_none, write_csv, write_results
from eva_report.terminal import counted
from eva_segmentation.evaluation.metric import ImageScore, IoUAndConfusion

PER_CLASS, CONFUSION = "per_class.csv", "confusion.csv"
SHOWN = 6  # images: of the worst, and of the best
_SIDE = 1024  # pixels of an image in the report
_LEAST_SHARE = 0.002  # of the pixels, for a name below an image
Labels = NDArray[np.uint8]
_OF_A_LAYER = r"decode\.d\d+\."  # losses of Mask2Former's single layers
_MEANINGS = {
    "mIoU": "mean IoU of the classes: intersection of prediction and label over their union",
    "mAcc": "mean accuracy of the classes: the share of a class's pixels that are right",
    "aAcc": "share of all pixels that are right",
}


def make_report(run: RunReport) -> Report:
    """Write `results.json` and tables, and say what the page shows."""
    metric, dataset = run.metric(IoUAndConfusion), run.dataset
    names, colors, _ = describe_classes(dataset.metainfo) if dataset is not None else ([], [], [])
    names = [name.strip() for name in names]
    counts = None if metric is None else metric.confusion
    classes = [] if counts is None else class_scores(names, counts)
    if run.scores:
        each = {f"{name}-{row['class']}": row[name] for name in ("IoU", "Acc") for row in classes}
        write_results(run.folder, {"sem_seg": {**run.scores, **each}})
    sections: list[Section] = [_scores(run, classes)] if run.scores else []
    if classes:
        images = dict(zip(names, metric.counts.tolist(), strict=True))
        sections += warn_of_few(len(dataset or ()), images)
        sections.append(_per_class(run.folder, classes))
    curves = dict(zip(_MEANINGS, _MEANINGS, strict=True))
    sections += run.curves(without=_OF_A_LAYER, scores="percent", shown=curves)
    if metric is not None and metric.areas is not None:
        write_areas(run.folder, *metric.areas)
    if counts is not None:
        sections.append(_confusion(run.folder, names, counts))
        sections += galleries(run.runner.model, dataset, metric.images, names, colors)
    data = []
    if run.training_set is not None:
        data.append(("training data", f"{len(run.training_set):,} images"))
    if dataset is not None:
        pixels = "" if counts is None else f", {counts.sum():,} pixels with a label"
        data.append(
            (
                "evaluation data",
                f"{counted(len(dataset), 'image')}{pixels}, {counted(len(names), 'class')}",
            )
        )
    score = finite_or_none(run.scores.get("mIoU"))
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
    right, predicted, labelled = counts.diagonal(), counts.sum(0), counts.sum(1)
    union, total = predicted + labelled - right, max(1, int(labelled.sum()))

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
        ScoreRow(
            name=name, values=[finite_or_none(run.scores[name])], meaning=_MEANINGS.get(name, "")
        )
        for name in order
        if name in run.scores
    ]
    description = "In percent, on labelled pixels."
    absent = [row["class"] for row in classes if row["IoU"] is None]
    if absent:
        shown = ", ".join(absent[:5]) + (", ..." if absent[5:] else "")
        description += (
            f" {len(absent)} of {len(classes)} classes ({shown}) are in neither labels nor "
            "predictions: they have no score and do not count in the means."
        )
    return ScoreTable(title="Scores", columns=["%"], rows=rows, text=description)


def _per_class(folder: Path, classes: Sequence[Mapping[str, Any]]) -> Table:
    heads = ["class", "IoU", "Acc", "share", "pixels"]
    rows = [[row[head] for head in heads] for row in classes]
    write_csv(folder / PER_CLASS, heads, rows)
    return Table(
        title="Classes",
        heads=["class", "IoU", "Acc", "share of pixels", "pixels"],
        rows=sorted(rows, key=lambda row: (row[1] is None, row[1])),
        text="Lowest IoU first, in percent. A dash: no pixel is labelled so, and for IoU none is "
        "predicted either.",
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
        text="Labelled pixels.",
        complete_in=CONFUSION,
    )


def galleries(
    model: Any,
    dataset: Any,
    scored: Sequence[ImageScore],
    names: Sequence[str],
    colors: Sequence[Color],
) -> list[Gallery]:
    """Choose the worst and the best images that were scored, segment them again, and draw them."""
    ordered = sorted(scored, key=lambda image: image.iou)
    count = min(SHOWN, len(ordered) - len(ordered) // 2)
    selections = {"Worst images": ordered[:count], "Best images": ordered[count:][-SHOWN:][::-1]}
    maps_of_images = _segmented(
        model, dataset, {image.path for some in selections.values() for image in some}
    )
    bands = bands_of(getattr(model, "module", model).data_preprocessor)
    return [
        Gallery(
            title=title,
            examples=[
                _example(image, maps_of_images[image.path], names, colors, bands) for image in some
            ],
            text="By mean IoU over the classes in the image. Unlabelled pixels are not painted.",
            legend=_legend(
                [maps for image in some for maps in maps_of_images[image.path]], names, colors
            ),
        )
        for title, some in selections.items()
    ]


def _legend(
    maps: Sequence[Labels], names: Sequence[str], colors: Sequence[Color]
) -> list[tuple[str, Color]]:
    """List the classes of some label maps, the largest first."""
    pixels = sum(
        (np.bincount(label_map.ravel(), minlength=256) for label_map in maps), np.zeros(256, int)
    )
    order = np.argsort(-pixels[: len(names)])
    return [(names[index], colors[index]) for index in order if pixels[index]]


def _segmented(model: Any, dataset: Any, paths: set[str]) -> dict[str, tuple[Labels, Labels]]:
    """Predict for some images of a dataset: path -> truth and prediction."""
    model = unwrap(model)
    model.eval()
    segmented = {}
    for index in range(len(dataset)):
        path = str(dataset.get_data_info(index).get("img_path"))
        if path not in paths:
            continue
        with torch.inference_mode():
            (sample,) = model.test_step(pseudo_collate([dataset[index]]))
        truth, prediction = (
            sample.get(name).data.squeeze().to("cpu", torch.uint8).numpy()
            for name in ("gt_sem_seg", "pred_sem_seg")
        )
        segmented[path] = truth, prediction
    return segmented


def _example(
    scored: ImageScore,
    maps: tuple[Labels, Labels],
    names: Sequence[str],
    colors: Sequence[Color],
    bands: Bands | None,
) -> Example:
    truth, prediction = maps
    wrong = (truth != IGNORED) & (truth != prediction)
    share = wrong.sum() / max(1, (truth != IGNORED).sum())
    rgb, images = draw_pixels(read_pixels(scored.path, bands), bands), []
    for title, classes in (("truth", truth), ("prediction", prediction)):
        image = Image.fromarray(overlay(rgb, classes, colors))
        image.thumbnail((_SIDE, _SIDE))
        images.append(TitledImage(title=f"{title}: {_listed(classes, names)}", image=image))
    name = Path(scored.path).name
    caption = f"{name}: IoU {100 * scored.iou:.1f}, {share:.0%} of the pixels wrong"
    return Example(caption=caption, images=images)


def _listed(classes: Labels, names: Sequence[str]) -> str:
    shares = np.bincount(classes.ravel(), minlength=len(names))[: len(names)] / classes.size
    shown = [index for index in np.argsort(-shares) if shares[index] >= _LEAST_SHARE]
    return ", ".join(f"{names[index]} {shares[index]:.0%}" for index in shown)
