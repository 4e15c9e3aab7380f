"""The page that shows an image by two models."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

from eva_app.classification import TOP, first_classes
from eva_app.detection import draw, find_objects
from eva_app.models import Models, show_image
from eva_app.uploads import Image, drop_images, read_images
from eva_report.drawing import Pixels
from eva_report.sheets import annotate

TASKS = ("detection", "mmdetection", "segmentation", "classification")


def _look(models: Models, name: str, image: Image, score: float) -> Pixels:
    if models.task(name) == "classification":
        return annotate(image.rgb, first_classes(models, name, image), rows=TOP)
    found = find_objects(models, name, image, score, tiles=False)
    return draw(models.load(name), image.rgb, found)


def _show(models: Models, files: Any, left: str, right: str, score: float) -> list[Pixels | None]:
    names, images = (left, right), read_images(files)
    return [_look(models, name, images[0], score) if images else None for name in names]


def build(models: Models, names: Sequence[str]) -> None:
    """Build the page, which begins with two models of one task if there are some."""
    first = next((one for one in names if len(models.names(models.task(one))) > 1), names[0])
    second = next(one for one in [*models.names(models.task(first)), *names] if one != first)
    with gr.Row():
        files = drop_images("Image", several=False)
        with gr.Column():
            left = gr.Dropdown([*names], value=first, label="Left model")
            right = gr.Dropdown([*names], value=second, label="Right model")
            score = gr.Slider(0, 1, 0.5, step=0.01, label="Least score")
    with gr.Row():
        images = [show_image("Left"), show_image("Right")]
    events = [files.change, left.input, right.input, score.input]
    models.answer(partial(_show, models), events, [files, left, right, score], images, "show_both")
