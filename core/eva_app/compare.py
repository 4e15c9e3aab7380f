"""The page that shows an image by two models."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

from eva_app.classification import TOP, first_classes
from eva_app.detection import draw, find_objects
from eva_app.models import Models, show_images
from eva_app.uploads import Image, drop_images, read_images
from eva_report.drawing import Pixels
from eva_report.sheets import annotate

TASKS = ("detection", "mmdetection", "segmentation", "classification")


def _look(models: Models, name: str, image: Image, score: float) -> Pixels:
    if models.task(name) == "classification":
        return annotate(image.rgb, first_classes(models, name, image), rows=TOP)
    found = find_objects(models, name, image, score, tiles=False)
    return draw(models.load(name), image.rgb, found)


def _show(models: Models, files: Any, *words: Any) -> list[tuple[Pixels, str]]:
    *names, score = words
    return [(_look(models, name, image, score), name)
            for image in read_images(files) for name in names]  # fmt: skip


def build(models: Models, names: Sequence[str]) -> None:
    """Build the page."""
    with gr.Row():
        files = drop_images("Image", several=False)
        with gr.Column():
            left = gr.Dropdown([*names], value=names[0], label="Left model")
            right = gr.Dropdown([*names], value=names[1], label="Right model")
            score = gr.Slider(0, 1, 0.5, step=0.01, label="Least score")
    both = show_images("Left and right", 2)
    events = [files.change, left.input, right.input, score.input]
    models.answer(partial(_show, models), events, [files, left, right, score], [both], "show_both")
