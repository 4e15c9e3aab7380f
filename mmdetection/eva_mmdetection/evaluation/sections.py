"""What the report of a detector says, and the tables beside it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric

from eva_mmdetection.data.panoptic import PanopticMetric
from eva_mmdetection.evaluation.metrics import scores_of_classes
from eva_mmdetection.evaluation.panoptic import panoptic_sections
from eva_openmmlab.checkpoint_hook import BEST_PREDICTIONS
from eva_openmmlab.report import RunReport
from eva_openmmlab.terminal import TITLES, percent
from eva_report.comparison import note_samples
from eva_report.content import Report, Section
from eva_report.detection import data_fact, detection_sections
from eva_report.page import write_results
from eva_report.terminal import counted

_COUNTED = 200_000  # images of a training set whose objects are counted


def make_report(run: RunReport) -> Report:
    """Write `results.json` and tables, and say what the page shows."""
    panoptic = run.metric(PanopticMetric)
    if panoptic is not None:
        return _make_panoptic_report(run, panoptic)
    scores, data, sections = percent(run.scores), _data(run), list[Section]()
    metric = run.metric(CocoMetric)
    if metric is not None and metric.cat_ids is None:  # it has never scored
        metric = None
    for task in getattr(metric, "metrics", ()):  # without a detection the metric gives none
        scores.setdefault(task, dict.fromkeys(("AP", "AP50", "AP75")))
    if metric is not None and metric._coco_api is not None and metric.outfile_prefix:
        images = _files(run.dataset)
        truth = _truth(metric, images)
        files = [Path(f"{metric.outfile_prefix}.{kind}.json") for kind in ("segm", "bbox")]
        names = {entry["id"]: entry["name"] for entry in truth["categories"]}
        for task, classes in scores_of_classes(metric, truth).items():
            each = {f"AP-{names[k]}": 100 * value for k, value in classes.items() if k in names}
            scores.get(task, {}).update(each)
        data.append(("evaluation data", data_fact(truth)))
        predictions = next(file for file in files if file.is_file())
        best = predictions.with_name(BEST_PREDICTIONS)
        file = getattr(run.dataset, "ann_file", None)  # several datasets in one have none
        if file and isinstance(metric._coco_api, COCO):  # not LVIS's rules
            annotations = Path(file).absolute()
            name = os.path.relpath(predictions, run.folder)
            note_samples(run.folder, "detection", truth=annotations, predictions=name)
        sections = detection_sections(
            truth=truth,
            predictions=predictions,
            images=images,
            scores=scores,
            folder=run.folder,
            best=best if run.best() and best.is_file() else None,
        )
    if scores:
        write_results(run.folder, scores)
    sections[1:1] = _curves(run)
    values = {TITLES[task]: metrics.get("AP") for task, metrics in scores.items()}
    lines = [f"{name} AP {value:.1f}" for name, value in values.items() if value is not None]
    return run.report(
        "Detection in mmdetection",
        scored=", ".join(lines) or "nothing was scored",
        data=data,
        sections=sections,
    )


def _make_panoptic_report(run: RunReport, metric: PanopticMetric) -> Report:
    scores = {name.removeprefix("coco_panoptic/"): value for name, value in run.scores.items()}
    sections, truth = panoptic_sections(run, metric)
    each = {
        f"PQ-{truth.categories[key]}": 100 * values["pq"]
        for key, values in metric.class_scores.items()
    }
    if scores:
        write_results(run.folder, {"panoptic": scores | each})
    names = {f"coco_panoptic/{name}": name for name in ("PQ", "PQ_th", "PQ_st")}
    curves = run.curves(without=r"d\d+\.", scores="percent", shown=names)
    return run.report(
        "Panoptic segmentation in mmdetection",
        scored=f"PQ {scores['PQ']:.1f}" if "PQ" in scores else "nothing was scored",
        data=[*_data(run), ("evaluation data", truth.describe())],
        sections=[*sections[:1], *curves, *sections[1:]],
    )


def _truth(metric: CocoMetric, images: Mapping[Any, Path]) -> dict[str, Any]:
    """Return the labels that were scored: of the model's classes and the dataset's images alone."""
    labels, ids = metric._coco_api.dataset, {*metric.cat_ids}
    return {
        **labels,
        "images": [image for image in labels["images"] if image["id"] in images],
        "categories": [category for category in labels["categories"] if category["id"] in ids],
        "annotations": [
            annotation
            for annotation in labels["annotations"]
            if annotation["category_id"] in ids and annotation["image_id"] in images
        ],
    }


def _files(dataset: Any) -> dict[Any, Path]:
    records = map(dataset.get_data_info, range(len(dataset)))
    return {record["img_id"]: Path(record["img_path"]) for record in records}


def _data(run: RunReport) -> list[tuple[str, str]]:
    dataset = run.training_set
    if dataset is None:
        return []
    description = f"{len(dataset):,} images"
    if len(dataset) <= _COUNTED:
        objects = sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset)))
        description += f", {objects:,} objects"
    classes = counted(len(dataset.metainfo["classes"]), "class")
    return [("training data", f"{description} of {classes}")]


def _curves(run: RunReport) -> list[Section]:
    """Plot losses, those of the last cascade stage alone, and AP."""
    names = {name for entry in run.entries for name in entry}
    stages = sorted(int(m[1]) for name in names if (m := re.match(r"s(\d+)\.loss", name)))
    shown = {
        name: f"{TITLES[task]} AP"
        for name in sorted(names)
        for task, metrics in percent({name: 0.0}).items()
        if "AP" in metrics
    }
    without = rf"s(?!{stages[-1]}\.)\d+\." if stages else r"(?!)"
    return run.curves(without=without, scores="AP, percent", shown=shown, factor=100)
