"""Datasets of images with objects, in the formats of other programs."""

import contextlib
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray

from eva_data.coco_writing import writing_predictions, writing_segments
from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.tiles import encode_mask
from eva_data.files import printable
from eva_data.label_files import describe_image, is_seen, render_template, write_features
from eva_data.saving import link_or_copy, make_folder, replace_folder, require_new, write_text

_LEAST_AREA = 16  # px
_LEAST_POINT = 0.05  # score of a keypoint that is labelled, as detectron2 draws them
_NO_OBJECTS = ("background", "other", "unlabeled", "unlabelled", "void")  # names of classes


class Format(NamedTuple):
    """Folder of the images; files of the dataset; folder and template of those of each image."""

    images: str
    files: tuple[str, ...] = ()
    labels: str = ""
    label_file: str = ""
    coco: str = ""  # file in COCO's format


FORMATS: Mapping[str, Format] = {
    "coco": Format("images/train", coco="annotations/instances_train.json"),
    "coco-panoptic": Format("images/train", coco="annotations/panoptic_train.json"),
    "yolo": Format("images/train", ("data.yaml",), "labels/train", "yolo.txt"),
    "voc": Format("JPEGImages", (), "Annotations", "voc.xml"),
    "label-studio": Format("images", ("tasks.json", "label_config.xml")),
    "cvat": Format("images", ("annotations.xml",)),
    "geojson": Format("features"),  # in the coordinates of georeferenced images, without these
    "fiftyone": Format("data", coco="labels.json"),
}


def entries_of(form: str) -> set[str]:
    """Name the files and folders of a dataset: a key of `FORMATS`, or "maps" of label maps."""
    if form == "maps":
        return {"images", "maps", "classes.toml"}
    about = FORMATS[form]
    places = about.images, *about.files, about.labels, about.coco
    return {path.partition("/")[0] for path in places if path}


def is_object(name: str) -> bool:
    """Return whether objects are of a class, and not the background of a segmentor's."""
    return name.strip().lower() not in _NO_OBJECTS


def regions_of(classes: NDArray[Any], count: int) -> list[dict[str, Any]]:
    """Make an object of each connected region of a class below `count` (H, W), from 16 px on."""
    from skimage.measure import label, regionprops

    parts, objects = label(classes, background=-1, connectivity=1), list[dict[str, Any]]()
    for region in regionprops(parts):
        number = int(classes[tuple(region.coords[0])])
        if number < count and region.area >= _LEAST_AREA:
            code = encode_mask(parts == region.label)
            about = {"category_id": number, "bbox": mask_api.toBbox(code).tolist()}
            objects.append(about | {"segmentation": code})
    return objects


@contextlib.contextmanager
def writing_dataset(
    output: Path,
    form: str | None,
    categories: Mapping[int, str],
    *,
    regions: bool = False,
    keypoints: KeypointNames | None = None,
    things: Collection[int] | None = None,
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write images with their objects to `output / form`, which is there at the end; None: nothing.

    `categories` are ids and names in the model's order. Of `regions`, which a segmentor finds,
    those of its background are left out. `things` are indices of classes, in the panoptic format;
    None for all.

    Yields:
        A function that adds an image, as that of `writing_predictions`; its `source`, a file or
        content, becomes part of the dataset.

    Raises:
        ValueError: If two images have one name (`a/b.jpg`, `a__b.jpg`) or one label file (`a.jpg`,
            `a.png`).
    """
    if form is None:
        yield lambda image: None
        return
    written = [not regions or is_object(name) for name in categories.values()]
    numbers = [number for number, is_written in enumerate(written) if is_written]
    categories = dict(itertools.compress(categories.items(), written))
    about, names, records = FORMATS[form], [*categories.values()], list[dict[str, Any]]()
    with replace_folder(output / form) as folder, contextlib.ExitStack() as stack:
        for subfolder in (about.images, about.labels):
            make_folder(folder / subfolder)
        if form == "coco-panoptic":
            kinds = [not regions if things is None else number in things for number in numbers]
            writer = writing_segments(folder / about.coco, categories, kinds)
            to_coco = stack.enter_context(writer)
        elif about.coco:
            writer = writing_predictions(folder / about.coco, categories, keypoints=keypoints)
            to_coco = stack.enter_context(writer)

        def add(image: Mapping[str, Any]) -> None:
            name = _file_name(image["name"])
            objects = [
                _with_visibility({**item, "category_id": numbers.index(item["category_id"])})
                for item in image["objects"]
                if item["category_id"] in numbers
            ]
            image = {**image, "name": name, "objects": objects}
            if form == "geojson":
                write_features(folder / about.images, names, image)
                return
            path = require_new(folder / about.images / name, name)
            if about.coco:
                to_coco({**image, "objects": filter(is_seen, image["objects"])})
            elif about.labels:
                target = (folder / about.labels / name).with_suffix(about.label_file[-4:])
                require_new(target, name)
                content = render_template(
                    about.label_file, **describe_image(image, names, tolerance=0.0)
                )
                target.write_text(content, encoding="utf-8")
            else:
                records.append(describe_image(image, names))
            _put_image(image.get("source"), path)

        yield add
        masks = any(item["line"] for image in records for item in image["objects"])
        for file in about.files:
            write_text(
                folder / file, render_template(file, names=names, images=records, masks=masks)
            )


def _file_name(name: str) -> str:
    """Name the file of an image in one folder by its path, `a/b.jpg` as `a__b.jpg`."""
    parts = (part for part in re.split("[/:]", name) if part not in ("", ".", ".."))
    return printable("__".join(parts)).lstrip(".")  # no hidden file


def _put_image(source: str | Path | bytes | None, path: Path) -> None:
    """Write the content of an image, or link or copy its file, if the dataset has it."""
    if isinstance(source, bytes):
        path.write_bytes(source)
    elif source:
        link_or_copy(Path(source), path)


def _with_visibility(item: dict[str, Any]) -> dict[str, Any]:
    """Write 2, of a visible keypoint, for the score of each; all 0 where that is too low."""
    if "keypoints" in item:
        x, y, score = np.reshape(item["keypoints"], (-1, 3)).T
        labelled = score >= _LEAST_POINT
        points = np.stack([x, y, np.full_like(score, 2)], axis=1) * labelled[:, None]
        item |= {"keypoints": points.ravel().tolist(), "num_keypoints": int(labelled.sum())}
    return item
