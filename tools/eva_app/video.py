"""The page of video classifiers: classes over time, and frames with what was seen in them."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from eva_app.examples import offer_examples
from eva_app.models import Models
from eva_app.uploads import drop_images, show_images
from eva_data.video.source import open_video
from eva_report.drawing import clock
from eva_report.sheets import annotate
from eva_video.inference.predictor import JudgedWindow, VideoPredictor, moments, windows_of

_CLASSES, _FRAMES = 3, 12
_HEADS = ["seconds", "probability", "class"]


def _judge(predictor: VideoPredictor, file: str, seconds: float) -> list[JudgedWindow]:
    return [*predictor.windows(file, seconds=seconds)]


def watch(models: Models, files: list[str] | None, name: str, seconds: float) -> tuple[Any, Any]:
    """Judge a video as `eva video demo --window SECONDS` does.

    Returns:
        Its most probable classes over time, and frames with the classes around them.
    """
    if not files:
        return None, None
    predictor, file = models.load(name), files[0]
    windows = models.cached(_judge, predictor, file, seconds)
    pieces = [*moments(windows)]
    order = np.argsort(-np.max([piece.probabilities for piece in pieces], axis=0), kind="stable")
    rows = [
        (time, piece.probabilities[label], predictor.class_names[label])
        for label in order[:_CLASSES]
        for piece in pieces
        for time in (piece.start, piece.end)
    ]
    with open_video(file) as video:
        places = [*windows_of(video, seconds=seconds)]
        picks = np.linspace(0, len(places) - 1, min(_FRAMES, len(places))).round().astype(int)
        frames = video.frames([places[at].first + places[at].length // 2 for at in picks])
    shown = [
        annotate(
            frame, predictor.top(probabilities, _CLASSES), heading=f"{clock(begin)} - {clock(end)}"
        )
        for (begin, end, probabilities), frame in zip(
            [windows[at] for at in picks], frames, strict=True
        )
    ]
    return pd.DataFrame(rows, columns=_HEADS), shown


def build(models: Models, names: Sequence[str]) -> None:
    """Build the page of video classifiers."""
    with gr.Row(elem_classes="page"):
        with gr.Column(elem_classes="inputs"):
            files = drop_images("Video", kind="video", several=False)
            offer_examples(models, names, files)
        with gr.Column(elem_classes="settings"):
            model = models.choose(names)
            seconds = gr.Slider(0.5, 20, 2, step=0.5, label="Window in seconds")
        with gr.Column(elem_classes="results"):
            x, y, color = _HEADS
            frames = show_images("Frames", 3)
            lines = gr.LinePlot(x=x, y=y, color=color, y_lim=[0, 1], label="Classes over time")
    inputs, on = [files, model, seconds], [files.change, model.input, seconds.release]
    models.answer("watch", watch, inputs, [lines, frames], on)
