"""The pages of images: objects or regions, classes and where a model looked, and two models."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import PIL.Image
import pycocotools.mask as mask_api
import torch
import torch.nn.functional as F

from eva_app.examples import offer_examples
from eva_app.models import Models
from eva_app.uploads import Image, drop_images, legend, read_images, read_named, show_images
from eva_data.coco_writing import writing_predictions
from eva_data.detection.tiles import encode_mask
from eva_data.writing import writing_dataset
from eva_report.demos import Prediction
from eva_report.detection_demo import PREDICTIONS, as_drawn
from eva_report.drawing import (
    Pixels,
    class_color,
    draw_objects,
    enlarge,
    enlargement,
    overlay,
)
from eva_report.sheets import annotate
from eva_report.terminal import counted

Objects = list[dict[str, Any]]
_LEAST = 0.05  # score of an object that is kept at all
_SIDE = 1280  # px of a drawn image
_HEADS = ["Image", "Class", "Confidence", "Box: x, y, width, height"]
_WIDTHS: list[str | int] = ["26%", "16%", "28%", "30%"]
_TOP, _CELLS = 5, 7
_HEAT = (255, 90, 0)  # color of what mattered
_HEAT_LEGEND = "Orange: covering this lowers the probability of the top class."
_BACKGROUND = "background"  # class of a segmentor that is no object


# ---- objects, and regions of classes -------------------------------------------------------------
def classes_of(predictor: Any) -> dict[int, str]:
    """Return ids and names of a detector's or segmentor's classes, in the model's order."""
    categories = getattr(predictor, "categories", None)
    return dict(categories or zip(predictor.labels, predictor.names, strict=True))


def find_objects(
    models: Models, name: str, image: Image, score: float, *, tiles: bool
) -> tuple[Objects, float]:
    """Find objects with at least a score, as the demo does; of a segmentor, regions of classes.

    They are in COCO's format, with the index of the class as `category_id`. The score of a region
    is the mean probability of its pixels, each of which has at least `score`. Behind them are the
    seconds that the model took.
    """
    predictor = models.load(name, tiles=tiles)
    if hasattr(predictor, "in_coco_format"):
        least = score if tiles else _LEAST  # objects of one tile suppress those of another
        objects, seconds = models.timed(_detect, predictor, image, least)
        return [detection for detection in objects if detection["score"] >= score], seconds
    (classes, probabilities), seconds = models.timed(_segment, predictor, image)
    regions, names = Objects(), [*classes_of(predictor).values()]
    for index in np.unique(classes[probabilities >= score]).tolist():
        if names[index].casefold() == _BACKGROUND:
            continue
        mask = (classes == index) & (probabilities >= score)
        region = {"category_id": index, "score": float(probabilities[mask].mean())}
        code = encode_mask(mask)
        regions.append({**region, "bbox": mask_api.toBbox(code).tolist(), "segmentation": code})
    return regions, seconds


def _detect(predictor: Any, image: Image, least: float) -> Any:
    predictor.score_threshold = least
    return predictor.in_coco_format(image.rgb)


def _segment(predictor: Any, image: Image) -> Any:
    classes, (best, _) = predictor.probable(image.rgb)
    return classes, best.numpy()


def _draw(predictor: Any, rgb: Pixels, objects: Objects, *, masks: bool = True) -> Pixels:
    """Draw objects, or paint regions, on an image (H, W, 3)."""
    names = [*classes_of(predictor).values()]
    if hasattr(predictor, "in_coco_format"):
        points = getattr(predictor, "keypoints", None)
        drawn = [as_drawn(detection, names, points) for detection in objects]
        drawn = drawn if masks else [detection._replace(mask=None) for detection in drawn]
        return draw_objects(rgb, drawn, longest=_SIDE)
    classes = np.full(rgb.shape[:2], len(names), np.int64)
    for detection in objects:
        classes[mask_api.decode(detection["segmentation"]) > 0] = detection["category_id"]
    painted = PIL.Image.fromarray(overlay(rgb, classes, predictor.colors, opacity=0.5 * masks))
    painted.thumbnail((_SIDE, _SIDE))
    return np.asarray(painted)


def _legend(
    predictor: Any, detections: Sequence[tuple[Image, Objects]], seconds: Sequence[float]
) -> str:
    """Write the classes of all images: their numbers of objects, or of regions their pixels."""
    names, colors = [*classes_of(predictor).values()], getattr(predictor, "colors", None)
    total, amounts = sum(image.rgb[..., 0].size for image, _ in detections), Counter[int]()
    for detection in (detection for _, objects in detections for detection in objects):
        area = int(mask_api.area(detection["segmentation"])) if colors else 1
        amounts[detection["category_id"]] += area
    return legend(
        (
            (names[k], colors[k], f"{amount / total:.1%}")
            if colors
            else (names[k], class_color(k), f"{amount:,}")
            for k, amount in sorted(amounts.items())
        ),
        seconds,
    )


def _write(predictor: Any, detections: Sequence[tuple[Image, Objects]]) -> list[str]:
    """Write what was found in COCO's format and, zipped, in YOLO's; return both files."""
    folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))  # deleted as uploads are
    classes, regions = classes_of(predictor), hasattr(predictor, "colors")
    points = getattr(predictor, "keypoints", None)
    with (
        writing_predictions(folder / PREDICTIONS, classes, keypoints=points) as add,
        writing_dataset(folder, "yolo", classes, regions=regions) as add_labels,
    ):
        for image, objects in detections:
            record = {"name": image.name, "size": image.rgb.shape[:2], "objects": objects}
            add(record)
            add_labels(record)
    labels = shutil.make_archive(f"{folder}/yolo", "zip", folder / "yolo")
    shutil.rmtree(folder / "yolo")  # gradio deletes the files that it is given alone
    return [str(folder / PREDICTIONS), labels]


def _show_objects(
    models: Models, files: Any, name: str, score: float, masks: bool, tiles: bool, hidden: list[str]
) -> tuple[Any, ...]:
    """Find, draw and list the objects of the classes that are not hidden."""
    images = read_images(files)
    if not images:
        return [], [], None, None, gr.CheckboxGroup(visible=False), ""
    predictor, counts, detections = models.load(name), Counter[str](), list[tuple[Image, Objects]]()
    names, times = [*classes_of(predictor).values()], list[float]()
    for image in images:
        objects, seconds = find_objects(models, name, image, score, tiles=tiles)
        times.append(seconds)
        counts.update(names[detection["category_id"]] for detection in objects)
        shown = [
            detection for detection in objects if names[detection["category_id"]] not in hidden
        ]
        detections.append((image, shown))
    drawn = [
        (_draw(predictor, image.rgb, some, masks=masks), image.name) for image, some in detections
    ]
    rows = [
        [
            image.name,
            names[detection["category_id"]],
            round(detection["score"], 4),
            ", ".join(f"{value:.1f}".removesuffix(".0") for value in detection["bbox"]),
        ]
        for image, some in detections
        for detection in some
    ]
    classes = gr.CheckboxGroup(
        choices=[name for name in names if name in counts],
        value=[name for name in hidden if name in counts],
        visible=bool(counts),
    )
    key = _legend(predictor, detections, times)
    return drawn, rows, *_write(predictor, detections), classes, key


def build_objects(models: Models, names: Sequence[str]) -> None:
    """Build the page of detectors, or of segmentors."""
    kind, label, least, usual = "objects", "Confidence", _LEAST, 0.5
    if models.task(names[0]) == "segmentation":
        kind, label, least, usual = "regions", "Pixel confidence", 0.0, 0.0
    else:
        usual = max(least, models.threshold(names[0]))
    with gr.Row(elem_classes="page"):
        with gr.Column(elem_classes="inputs"):
            files = drop_images()
            offer_examples(models, names, files)
        with gr.Column(elem_classes="settings"):
            model = models.choose(names)
            score = gr.Slider(least, 1, usual, step=0.01, label=label)
            masks = gr.Checkbox(True, label="Masks")
            tiles = gr.Checkbox(False, label="Tile large images")
            hidden = gr.CheckboxGroup(label="Hide classes", visible=False)
        with gr.Column(elem_classes="results"):
            drawn = show_images("Results", 0)
            key = gr.HTML(label="Classes")
            title = kind.capitalize()
            table = gr.Dataframe(headers=_HEADS, label=title, wrap=True, column_widths=_WIDTHS)
            with gr.Row():
                downloads = [gr.DownloadButton(f"Download {form}") for form in ("COCO", "YOLO")]
    inputs, name = [files, model, score, masks, tiles, hidden], "show_" + kind
    models.answer(name, _show_objects, inputs, [drawn, table, *downloads, hidden, key])


# ---- classes, and where a model looked -----------------------------------------------------------
def _classify(predictor: Any, image: Image) -> list[Prediction]:
    """Name what an image shows as the demo does, with the digits of its predictions.json."""
    return [Prediction(name, round(share, 6)) for name, share in predictor(image.rgb, top=_TOP)]


def _look(predictor: Any, image: Image) -> Pixels:
    """Color in a grey image what the first class depends on.

    Occlusion (Zeiler & Fergus 2013, https://arxiv.org/abs/1311.2901): the mean colour covers one
    cell after another, and the class loses probability.
    """
    prepared, cells = predictor.prepare(image.rgb), torch.eye(_CELLS**2)
    covers = F.interpolate(cells.view(-1, 1, _CELLS, _CELLS), prepared.shape[1:])  # (49, 1, S, S)
    (whole,) = predictor.judge([prepared])
    rest = [predictor.judge([*prepared * (1 - some)]) for some in covers.split(_CELLS)]
    lost = (whole - np.concatenate(rest))[:, whole.argmax()].clip(0).reshape(_CELLS, _CELLS)
    mean, std = (np.array(predictor.facts[name]) for name in ("mean", "std"))
    seen = (prepared.permute(1, 2, 0).numpy() * std + mean).clip(0, 1)
    seen = enlarge(seen, enlargement(*seen.shape[:2]))
    heat = PIL.Image.fromarray((255 * lost / max(lost.max(), 1e-9)).astype(np.uint8))
    share = np.asarray(heat.resize((seen.shape[1], len(seen)), PIL.Image.Resampling.BICUBIC)) / 255
    share, grey = 0.75 * share[..., None], seen.mean(axis=2, keepdims=True)
    # a dark image becomes lighter and a light one darker, so that the heat is seen on both
    return np.asarray((1 - share) * (64 + 128 * grey) + share * np.array(_HEAT), np.uint8)


def _show_classes(
    models: Models, files: Any, name: str, shown: str | None, look: bool
) -> tuple[Any, ...]:
    """Classify images, of which one is `shown`."""
    images = {image.name: image for image in read_images(files)}
    shown = shown if shown in images else next(iter(images), None)
    choice = gr.Dropdown(choices=[*images], value=shown, visible=len(images) > 1)
    if shown is None:
        return choice, None, [], ""
    arguments = models.load(name), images[shown]
    looked = [models.cached(_look, *arguments)] if look else [images[shown].rgb]
    classes, seconds = models.timed(_classify, *arguments)
    return choice, dict(classes), looked, legend([], [seconds])


def build_classes(models: Models, names: Sequence[str]) -> None:
    """Build the page of classifiers."""
    with gr.Row(elem_classes="page"):
        with gr.Column(elem_classes="inputs"):
            files = drop_images()
            offer_examples(models, names, files)
        with gr.Column(elem_classes="settings"):
            model = models.choose(names)
            shown = gr.Dropdown([], label="Image", visible=False)
            look = gr.Checkbox(True, label="Heat map")
        with gr.Column(elem_classes="results"):
            looked = show_images("Image", 0)
            gr.Markdown(_HEAT_LEGEND)
            classes = gr.Label(label="Classes", num_top_classes=_TOP)
            key = gr.HTML(label="Time")
    inputs = [files, model, shown, look]
    models.answer("show_classes", _show_classes, inputs, [shown, classes, looked, key])


# ---- any of them ---------------------------------------------------------------------------------
def _show_both(
    models: Models, files: Any, left: str, right: str, score: float
) -> list[tuple[Pixels, str]]:
    def look(name: str, image: Image) -> tuple[Pixels, str]:
        predictor = models.load(name)
        if models.task(name) == "classification":
            top, seconds = models.timed(_classify, predictor, image)
            return annotate(image.rgb, top, rows=_TOP), f"{1000 * seconds:,.0f} ms"
        objects, seconds = find_objects(models, name, image, score, tiles=False)
        number = counted(len(objects), "object" if hasattr(predictor, "categories") else "region")
        return _draw(predictor, image.rgb, objects), f"{number}, {1000 * seconds:,.0f} ms"

    shown = [(name, *look(name, image)) for image in read_images(files) for name in (left, right)]
    return [(drawn, f"{Path(name).name}: {result}") for name, drawn, result in shown]


def build_both(models: Models, names: Sequence[str]) -> None:
    """Build the page that shows an image by two models."""
    with gr.Row(elem_classes="page both"):
        with gr.Column(elem_classes="inputs"):
            files = drop_images("Image", several=False)
            offer_examples(models, names, files)
        with gr.Column(elem_classes="settings"):
            left = models.choose(names, "Left model")
            right = models.choose(names, "Right model", at=1)
            score = gr.Slider(0, 1, 0.5, step=0.01, label="Confidence")
        with gr.Column(elem_classes="results"):
            both = show_images("Left and right", 2)
    models.answer("show_both", _show_both, [files, left, right, score], both)


def offer_predict(models: Models, names: Sequence[str]) -> None:
    """Let programs and agents ask the models."""

    def predict(
        image: str, model: str = names[0], score: float = 0.5, tiles: bool = False
    ) -> list[dict[str, Any]]:
        """Look at an image with a detector, a segmentor or a classifier.

        Args:
            image: Path of a file below the folder of the app, or `data:` with the file in base64.
            model: Name of a model, such as the folder of its run.
            score: Lowest confidence of an object, 0.05 to 1, or of the pixels of a region.
            tiles: Tile a large image, so that small objects are found.

        Returns:
            Objects, or the regions of classes: category (a name), score (0 to 1), bbox (x, y,
            width, height in pixels), segmentation (COCO's run-length code) where there is a mask.
            Of a classifier five classes and their probabilities, the most likely first.
        """
        if model not in names:
            raise ValueError(f"model={model!r}: there are {', '.join(names)}")
        seen = read_named(image, models.folder)
        if models.task(model) == "classification":
            top, _ = models.timed(_classify, models.load(model), seen)
            return [{"category": name, "score": share} for name, share in top]
        classes = [*classes_of(models.load(model)).items()]
        return [
            {**detection, "category_id": classes[at][0], "category": classes[at][1]}
            for detection in find_objects(models, model, seen, float(score), tiles=tiles)[0]
            for at in [detection["category_id"]]
        ]

    models.offer(predict)
