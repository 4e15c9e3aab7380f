"""What the report of panoptic segments shows: PQ, of each class too, and the first images."""

from pathlib import Path
from typing import Any

from PIL import Image

from eva_data.detection.coco import read_coco
from eva_data.detection.datasets import CocoDataset
from eva_data.detection.panoptic import read_ids
from eva_data.detection.tiles import encode_mask
from eva_data.images import read_rgb
from eva_mmdetection.data.panoptic import PREDICTIONS, PanopticMetric
from eva_openmmlab.report import RunReport
from eva_report.content import Example, Gallery, ScoreRow, ScoreTable, Section, Table, TitledImage
from eva_report.detection import PER_CLASS
from eva_report.drawing import DrawnObject, draw_objects
from eva_report.page import finite_or_none, write_csv

_SHOWN = 12  # images
_SIDE = 1024  # px; larger images are reduced
_GROUPS = {"all": "", "things": "_th", "stuff": "_st"}
_MEANINGS = {
    "PQ": "panoptic quality, the mean over classes of SQ times RQ",
    "SQ": "segmentation quality: mean IoU of the segments that are found, at an IoU above 0.5",
    "RQ": "recognition quality: F1 of the segments that are found",
}
_HEADS = ["class", *_MEANINGS, "found", "missed", "false"]


def panoptic_sections(run: RunReport, metric: PanopticMetric) -> tuple[list[Section], CocoDataset]:
    """Make the sections of scores, classes and images, beside the table `per_class.csv`.

    Returns:
        The sections, and what was scored against.
    """
    truth, scores = read_coco(metric.truth), run.scores
    rows = [
        ScoreRow(
            name=name,
            values=[
                finite_or_none(scores.get(f"coco_panoptic/{name}{k}")) for k in _GROUPS.values()
            ],
            meaning=meaning,
        )
        for name, meaning in _MEANINGS.items()
    ]
    description = (
        f"In percent, on {len(truth.images):,} images with {len(truth.objects):,} segments."
    )
    sections: list[Section] = [
        ScoreTable(title="Scores", columns=[*_GROUPS], rows=rows, text=description)
    ]
    classes: list[list[Any]] = [
        [
            truth.categories[key],
            *(100 * values[name] for name in ("pq", "sq", "rq")),
            *(int(values[name]) for name in ("tp", "fn", "fp")),
        ]
        for key, values in metric.class_scores.items()
    ]
    if classes:
        write_csv(run.folder / PER_CLASS, _HEADS, classes)
        ordered = sorted(classes, key=lambda row: row[1])
        text = "Lowest PQ first, in percent. A segment is found at an IoU above 0.5."
        sections.append(
            Table(title="Classes", heads=_HEADS, rows=ordered, text=text, complete_in=PER_CLASS)
        )
    if metric.outfile_prefix and classes:
        predicted = read_coco(Path(metric.outfile_prefix).with_name(PREDICTIONS))
        sections.append(_gallery(run, truth, Path(metric.folder), predicted))
    return sections, truth


def _gallery(run: RunReport, truth: CocoDataset, folder: Path, predicted: CocoDataset) -> Gallery:
    assert predicted.panoptic
    sides = {"truth": (truth, folder), "prediction": (predicted, predicted.panoptic.folder)}
    dataset: Any = run.dataset
    examples = []
    for index in range(min(len(dataset), _SHOWN)):
        record = dataset.get_data_info(index)
        path, key = record["img_path"], record["img_id"]
        images = [
            TitledImage(title=title, image=_drawing(data, pngs, key, path))
            for title, (data, pngs) in sides.items()
        ]
        examples.append(Example(caption=Path(path).name, images=images))
    return Gallery(title="Images", examples=examples, text="The first of the evaluation.")


def _drawing(data: CocoDataset, folder: Path, key: int, path: str) -> Image.Image:
    assert data.panoptic
    ids, numbers = read_ids(folder / data.panoptic.files[key]), [*data.categories]
    drawn = []
    for segment in (entry for entry in data.objects if entry["image_id"] == key):
        category, mask = segment["category_id"], ids == segment["segment_id"]
        code, (ys, xs) = encode_mask(mask), mask.nonzero()
        if len(ys):
            box, name = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), data.categories[category]
            item = DrawnObject(box, name, numbers.index(category), mask=code)
            drawn.append(item._replace(boxed=category in data.panoptic.things))
    return Image.fromarray(draw_objects(read_rgb(path, upright=True), drawn, longest=_SIDE))
