"""Examples of the pages: images and videos that a run was scored on."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import PIL.Image

from eva_app.command import Source
from eva_app.models import Models
from eva_backbone.checkpoints.run_folders import CONFIG, folder_of_run
from eva_command.public_settings import read_json, section
from eva_data.files import VIDEO_SUFFIXES, load_json
from eva_data.images import read_rgb
from eva_data.inputs import files_at, is_video
from eva_data.video.source import open_video
from eva_report.drawing import Pixels

logger = logging.getLogger(__name__)
_MOST, _SIDE = 6, 160  # examples of a page; longest side of one in px


def _of_detectron2(source: Source) -> list[Path]:
    from eva_detection.config.settings import load_recipe
    from eva_detection.data.custom_data import annotation_files, image_folder

    cfg = load_recipe(str(source.config), weights=source.weights)
    (annotations, *_), folder = annotation_files(cfg, "val"), image_folder(cfg)
    return [
        Path(folder or "", entry["file_name"]) for entry in load_json(Path(annotations))["images"]
    ]


def _of_mmengine(source: Source) -> list[Path]:
    from mmengine.registry import DATASETS, init_default_scope

    from eva_openmmlab.config import load_config, parts_of

    cfg = load_config(str(source.config))
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build({**parts_of(cfg.val_dataloader.dataset)[0], "pipeline": []})
    return [Path(dataset.get_data_info(index)["img_path"]) for index in _spread(len(dataset))]


def _of_classifier(source: Source) -> list[Path]:
    from eva_data.labelled_images import hold_out_images, open_labelled

    data = section(read_json(folder_of_run(Path(source.weights)) / CONFIG), "data")
    samples = open_labelled(data["val"] or data["train"], None, upright=False)
    if data["val_share"]:
        transform: Any = None
        _, samples = hold_out_images(samples, data["val_share"], transform, name="val_share")
    return [Path(samples.sample_id(index)) for index in _spread(len(samples))]


def _of_video(source: Source) -> list[Path]:
    data = section(read_json(folder_of_run(Path(source.weights)) / CONFIG), "data")
    return files_at(Path(data["val"]), VIDEO_SUFFIXES) if Path(data["val"] or "?").is_dir() else []


_READERS: Mapping[str, Callable[[Source], list[Path]]] = {
    "detection": _of_detectron2,
    "mmdetection": _of_mmengine,
    "segmentation": _of_mmengine,
    "classification": _of_classifier,
    "video": _of_video,
}


def find_examples(source: Source) -> list[Path]:
    """Find files that a run was scored on; none where it is no run, or its data have moved."""
    try:
        files = _READERS[source.task](source)
    except Exception as error:  # whatever it is: the page works without examples
        logger.info("no examples for %s: %r", source.weights, error)
        return []
    return [file for file in (files[index] for index in _spread(len(files))) if file.is_file()]


def _first_frame(file: Path) -> Pixels:
    with open_video(file) as video:
        return np.asarray(video.frames([0])[0])


def _spread(length: int) -> list[int]:
    """Choose indexes that are spread over a dataset."""
    picks: list[int] = np.linspace(0, length - 1, min(_MOST, length)).astype(int).tolist()
    return picks


def offer_examples(models: Models, names: Sequence[str], files: gr.File) -> None:
    """Show examples of the first model that has some; a click drops one into `files`."""
    found = next(filter(None, map(find_examples, map(models.source, names))), [])
    thumbnails = []
    for file in found:
        image = PIL.Image.fromarray(
            _first_frame(file) if is_video(file) else read_rgb(file, upright=True)
        )
        image.thumbnail((_SIDE, _SIDE))
        thumbnails.append((image, None))
    if not found:
        return

    def take(event: gr.SelectData) -> str | list[str]:
        folder = tempfile.mkdtemp(dir=gr.utils.get_upload_folder())  # deleted as uploads are
        copy = str(shutil.copy(found[event.index], folder))
        return [copy] if files.file_count == "multiple" else copy

    gallery = gr.Gallery(
        thumbnails,
        label="Examples from the validation data",
        columns=3,
        height="auto",
        allow_preview=False,
        interactive=False,
        elem_classes="examples",
        buttons=[],
    )
    gallery.select(take, None, files, api_visibility="private")
