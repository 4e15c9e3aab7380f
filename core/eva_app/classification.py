"""The page of classifiers: the first classes of images, and where the model looked."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import gradio as gr
import numpy as np
import PIL.Image

from eva_app.models import Models, show_images
from eva_app.uploads import Image, drop_images, read_images
from eva_report.demos import Prediction
from eva_report.drawing import Pixels, enlarged, enlargement

TOP, _CELLS = 5, 7
_FAINT = 0.35  # brightness of what did not matter
_LOOKED = """By occlusion: bright is what costs the first class its probability where it is covered,
one of 49 cells after the other."""


def first_classes(models: Models, name: str, image: Image) -> list[Prediction]:
    """Name what an image shows as the demo does, with the digits of its predictions.json."""
    top = models.cached(_classify, models.load(name), image)
    return [Prediction(one.name, round(one.probability, 6)) for one in top]


def _classify(predictor: Any, image: Image) -> Any:
    return predictor(image.rgb, top=TOP)


def _look(predictor: Any, image: Image) -> Pixels:
    """Darken what the model sees, but for what its first class depends on.

    Occlusion (Zeiler & Fergus 2013, https://arxiv.org/abs/1311.2901): the mean colour covers one
    cell after another, and the class loses probability.
    """
    prepared, lost = predictor.prepare(image.rgb), np.zeros((_CELLS, _CELLS), np.float32)
    edges = np.linspace(0, prepared.shape[-1], _CELLS + 1).astype(int).tolist()
    (whole,) = predictor.judge([prepared])
    for row, (top, bottom) in enumerate(pairwise(edges)):
        covered = prepared.repeat(_CELLS, 1, 1, 1)
        for one, (left, right) in zip(covered, pairwise(edges), strict=True):
            one[:, top:bottom, left:right] = 0  # the mean colour
        lost[row] = (whole - predictor.judge([*covered]))[:, whole.argmax()].clip(0)
    mean, std = (np.array(predictor.facts[name]) for name in ("mean", "std"))
    seen = (prepared.permute(1, 2, 0).numpy() * std + mean).clip(0, 1)
    seen = enlarged(seen, enlargement(*seen.shape[:2]))
    heat = PIL.Image.fromarray((255 * lost / max(lost.max(), 1e-9)).astype(np.uint8))
    share = np.asarray(heat.resize((seen.shape[1], len(seen)), PIL.Image.Resampling.BICUBIC)) / 255
    return np.asarray(255 * seen * (_FAINT + (1 - _FAINT) * share[..., None]), np.uint8)


def _show(models: Models, files: Any, name: str, shown: str | None, look: bool) -> tuple[Any, ...]:
    """Classify images, of which one is `shown`."""
    images = {image.name: image for image in read_images(files)}
    shown = shown if shown in images else next(iter(images), None)
    choice = gr.Dropdown(choices=[*images], value=shown, visible=len(images) > 1)
    if shown is None:
        return choice, None, []
    looked = [models.cached(_look, models.load(name), images[shown])] if look else []
    return choice, dict(first_classes(models, name, images[shown])), looked


def build(models: Models, names: Sequence[str]) -> None:
    """Build the page of classifiers."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            files = drop_images()
            model = gr.Dropdown([*names], label="Model", visible=len(names) > 1)
            shown = gr.Dropdown([], label="Image", visible=False)
            look = gr.Checkbox(True, label="Show where the model looked")
        classes = gr.Label(label="Classes", num_top_classes=TOP, min_width=280)
        with gr.Column(min_width=280):
            looked = show_images("Where the model looked", 1)
            gr.Markdown(_LOOKED)
    events = [files.change, model.input, shown.input, look.input]
    inputs = [files, model, shown, look]
    models.answer(partial(_show, models), events, inputs, [shown, classes, looked], "show_classes")
