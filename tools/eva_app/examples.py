"""Examples of the pages: validation images and videos of a run."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import PIL.Image
from mmengine.registry import DATASETS, init_default_scope

from eva_app.command import Source
from eva_app.models import Models
from eva_backbone.checkpoints.run_folders import CONFIG, folder_of_run
from eva_command.public_settings import read_json, section
from eva_data.captions.sources import open_captions
from eva_data.files import VIDEO_SUFFIXES, load_json
from eva_data.images import read_rgb
from eva_data.inputs import files_at, is_video
from eva_data.labelled_images import hold_out_images, open_labelled
from eva_data.video.source import open_video
from eva_detection.config.settings import load_recipe
from eva_detection.data.records import annotation_files, image_folder
from eva_openmmlab.config import load_config, parts_of

logger = logging.getLogger(__name__)
_MOST, _SIDE = 6, 160  # examples of a page; longest side of one in px


def _of_detectron2(source: Source) -> list[Any]:
    cfg = load_recipe(str(source.config), weights=source.weights)
    (annotations, *_), folder = annotation_files(cfg, "val"), image_folder(cfg) or ""
    return [Path(folder, entry["file_name"]) for entry in load_json(Path(annotations))["images"]]


def _of_mmengine(source: Source) -> list[Any]:
    cfg = load_config(str(source.config))
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build({**parts_of(cfg.val_dataloader.dataset)[0], "pipeline": []})
    return [dataset.get_data_info(index)["img_path"] for index in _spread(len(dataset))]


def _of_engine(source: Source) -> list[Any]:
    run = folder_of_run(Path(source.weights))
    data = section(read_json(run / CONFIG), "data")
    if source.task == "video":  # of a folder
        return files_at(Path(data["val"]), VIDEO_SUFFIXES)
    if source.task == "clip" and not data["zero_shot"]:
        return _of_pairs(data, run.parent)
    location = data.get("zero_shot") or data["val"] or data["train"]
    if location.startswith(("hf:", "torchvision:")):  # which might be downloaded
        return []
    samples: Any = open_labelled(location, None, upright=False)
    if data["val_share"] and source.task != "clip":
        whole: Any = None  # no transform
        _, samples = hold_out_images(samples, data["val_share"], whole, name="val_share")
    return [samples.sample_id(index) for index in _spread(len(samples))]


def _of_pairs(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write a few images of pairs, which may lie in shards, into the folder of uploads."""
    columns = {name: data.get(name) for name in ("root", "image_column", "caption_column")}
    location, files = data["val"] or data["train"], list[Path]()
    pairs = open_captions(location, **columns, indexes=folder / "shard_indexes")
    if data["val_share"]:
        _, pairs = pairs.hold_out(data["val_share"], name="val_share")
    uploads = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
    for index in _spread(len(pairs)):
        files.append(uploads / f"{Path(pairs.name(index)).stem}_{index}.png")
        pairs.image(index).save(files[-1])
    return files


class Example(NamedTuple):
    """A file, and how it is shown."""

    file: Path
    thumbnail: PIL.Image.Image


def find_examples(source: Source) -> list[Example]:
    """Find files that a run was scored on; none where it is no run, or its data have moved."""
    find = {"detection": _of_detectron2, "mmdetection": _of_mmengine, "segmentation": _of_mmengine}
    try:
        files = find.get(source.task, _of_engine)(source)
        spread = (Path(files[index]) for index in _spread(len(files)))
        return [Example(file, _thumbnail(file)) for file in spread if file.is_file()]
    except Exception as error:  # whatever it is: the page works without examples
        logger.info("no examples for %s: %r", source.weights, error)
        return []


def zero_shot_classes(source: Source) -> Sequence[str]:
    """Name the classes that a CLIP's run was scored on; none where it is no run, or they moved."""
    with contextlib.suppress(Exception):
        settings = read_json(folder_of_run(Path(source.weights)) / CONFIG)
        folder = section(settings, "data")["zero_shot"]
        return open_labelled(folder, None, upright=False).classes if folder else []
    return []


def _spread(length: int) -> list[int]:
    """Choose indexes that are spread over a dataset."""
    picks: list[int] = np.linspace(0, length - 1, min(_MOST, length)).astype(int).tolist()
    return picks


def _thumbnail(file: Path) -> PIL.Image.Image:
    if is_video(file):
        with open_video(file) as video:
            image = PIL.Image.fromarray(np.asarray(video.frames([0])[0]))
    else:
        image = PIL.Image.fromarray(read_rgb(file, upright=True))
    image.thumbnail((_SIDE, _SIDE))
    return image


def offer_examples(models: Models, names: Sequence[str], files: gr.File) -> None:
    """Show examples of the first model that has some; a click drops one into `files`."""
    examples = next(filter(None, (find_examples(models.source(name)) for name in names)), [])
    if not examples:
        return

    def take(event: gr.SelectData) -> str | list[str]:
        folder = tempfile.mkdtemp(dir=gr.utils.get_upload_folder())  # deleted as uploads are
        copy = str(shutil.copy(examples[event.index].file, folder))
        return [copy] if files.file_count == "multiple" else copy

    look: dict[str, Any] = {"columns": 3, "height": "auto", "allow_preview": False, "buttons": []}
    gallery = gr.Gallery(
        [example.thumbnail for example in examples],
        label="Examples from the validation data",
        elem_classes="examples",
        interactive=False,
        **look,
    )
    gallery.select(take, None, files, api_visibility="private")
