"""The pages of detectors and segmentors: objects, or the regions of classes, in images."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import PIL.Image
import pycocotools.mask as mask_api

from eva_app.models import Models, show_images
from eva_app.uploads import Image, drop_images, read_images
from eva_data.detection.tiles import encode_mask
from eva_data.writing import writing_dataset, writing_predictions
from eva_report.detection_demo import PREDICTIONS, as_drawn
from eva_report.drawing import Pixels, draw_objects, overlay, with_legend

Objects = list[dict[str, Any]]
_LEAST = 0.05  # score of an object that is kept at all
_SIDE = 1280  # px of a drawn image
_HEADS = ["image", "class", "score", "x", "y", "width", "height"]


def classes_of(predictor: Any) -> dict[int, str]:
    """Return ids and names of a detector's or segmentor's classes, in the model's order."""
    known = getattr(predictor, "categories", None)
    return dict(known or zip(predictor.labels, predictor.names, strict=True))


def find_objects(models: Models, name: str, image: Image, score: float, *, tiles: bool) -> Objects:
    """Find objects with at least a score, as the demo does; of a segmentor, regions of classes.

    They are in COCO's format, with the index of the class as `category_id`. The score of a region
    is the mean probability of its pixels, each of which has at least `score`.
    """
    predictor = models.load(name, tiles=tiles)
    if hasattr(predictor, "in_coco_format"):
        least = score if tiles else _LEAST  # objects of one tile suppress those of another
        found: Objects = models.cached(_detect, predictor, image, least)
        return [one for one in found if one["score"] >= score]
    classes, probabilities = models.cached(_segment, predictor, image)
    regions = Objects()
    for index in np.unique(classes).tolist():
        mask = (classes == index) & (probabilities >= score)
        code = encode_mask(mask)
        if mask.any():
            one = {"category_id": index, "bbox": mask_api.toBbox(code).tolist()}
            mean = float(probabilities[mask].mean())
            regions.append(one | {"score": mean, "segmentation": code})
    return regions


def _detect(predictor: Any, image: Image, least: float) -> Any:
    predictor.score_threshold = least
    return predictor.in_coco_format(image.rgb).objects


def _segment(predictor: Any, image: Image) -> Any:
    classes, probabilities = predictor.probable(image.rgb)
    return classes, probabilities[0].numpy()


def draw(predictor: Any, rgb: Pixels, objects: Objects, *, masks: bool = True) -> Pixels:
    """Draw objects, or paint regions and add a legend, on an image (H, W, 3)."""
    names = [*classes_of(predictor).values()]
    if hasattr(predictor, "in_coco_format"):
        drawn = [as_drawn(one, names) for one in objects]
        drawn = drawn if masks else [one._replace(mask=None) for one in drawn]
        return draw_objects(rgb, drawn, longest=_SIDE)
    classes = np.full(rgb.shape[:2], len(names), np.int64)
    for one in objects:
        classes[mask_api.decode(one["segmentation"]) > 0] = one["category_id"]
    painted = overlay(rgb, classes, predictor.colors, opacity=0.5 * masks)
    both = PIL.Image.fromarray(with_legend(painted, classes, names, predictor.colors))
    both.thumbnail((_SIDE, _SIDE))
    return np.asarray(both)


def _write(classes: dict[int, str], images: Sequence[Image], found: Sequence[Objects]) -> list[str]:
    """Write what was found in COCO's format and, zipped, in YOLO's; return both files."""
    folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))  # deleted as uploads are
    about = [{"name": image.name, "size": image.rgb.shape[:2], "objects": objects}
             for image, objects in zip(images, found, strict=True)]  # fmt: skip
    with (
        writing_predictions(folder / PREDICTIONS, classes) as add,
        writing_dataset(folder, "yolo", classes) as add_labels,
    ):
        for one in about:
            add(one)
            add_labels(one)
    return [
        str(folder / PREDICTIONS),
        shutil.make_archive(f"{folder}/yolo", "zip", folder / "yolo"),
    ]


def _show(
    models: Models, files: Any, name: str, score: float, masks: bool, tiles: bool, hidden: list[str]
) -> tuple[Any, ...]:
    """Find, draw and list the objects of the classes that are not hidden."""
    if not (images := read_images(files)):
        return [], [], None, None, gr.CheckboxGroup(visible=False)
    predictor = models.load(name)
    names = [*classes_of(predictor).values()]
    every = [find_objects(models, name, image, score, tiles=tiles) for image in images]
    counts = Counter(names[one["category_id"]] for objects in every for one in objects)
    found = [[one for one in some if names[one["category_id"]] not in hidden] for some in every]
    pairs = [*zip(images, found, strict=True)]
    drawn = [(draw(predictor, image.rgb, some, masks=masks), image.name) for image, some in pairs]
    rows = [[image.name, names[one["category_id"]], round(one["score"], 4),
             *(round(value, 1) for value in one["bbox"])]
            for image, some in pairs for one in some]  # fmt: skip
    classes = gr.CheckboxGroup(
        choices=[(f"{one} ({counts[one]})", one) for one in names if one in counts],
        value=[one for one in hidden if one in counts], visible=True,
    )  # fmt: skip
    return drawn, rows, *_write(classes_of(predictor), images, found), classes


def build(models: Models, names: Sequence[str]) -> None:
    """Build the page of detectors, or of segmentors."""
    regions = models.task(names[0]) == "segmentation"
    text, least, usual = ("Least probability", 0, 0) if regions else ("Least score", _LEAST, 0.5)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            files = drop_images()
            model = gr.Dropdown([*names], label="Model", visible=len(names) > 1)
            score = gr.Slider(least, 1, usual, step=0.01, label=text)
            masks = gr.Checkbox(True, label="Masks")
            tiles = gr.Checkbox(False, label="Look at large images in tiles")
            hidden = gr.CheckboxGroup(label="Hide classes", visible=False)
        with gr.Column(scale=2, min_width=320):
            drawn = show_images("Results", 2)
            widths: Any = ["150px", "120px", *["72px"] * 5]
            table = gr.Dataframe(headers=_HEADS, label="Objects", wrap=True, column_widths=widths)
            with gr.Row():
                downloads = [gr.DownloadButton(f"Download {form}") for form in ("COCO", "YOLO")]
    events = [files.change, *(one.input for one in (model, score, masks, tiles, hidden))]
    inputs = [files, model, score, masks, tiles, hidden]
    outputs = [drawn, table, *downloads, hidden]
    title = "show_regions" if regions else "show_objects"
    models.answer(partial(_show, models), events, inputs, outputs, title)
