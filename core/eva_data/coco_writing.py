"""Predictions as files in COCO's formats: of objects, and panoptic."""

import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_api
from numpy.typing import NDArray
from PIL import Image

from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.panoptic import as_rgb
from eva_data.detection.tiles import encode_mask
from eva_data.saving import make_folder, replace_file, require_new, write_text


@contextlib.contextmanager
def writing_predictions(
    file: Path, categories: Mapping[int, str], *, keypoints: KeypointNames | None = None
) -> Iterator[Callable[..., None]]:
    """Write predictions to a COCO file, which appears under its name at the end.

    `pycocotools.COCO` reads it as an annotation file, whose objects have a score. `categories` are
    ids and names in the model's order, which list the `keypoints`.

    Yields:
        A function that adds an image: its `name`, `size` (height, width) and `objects`, with the
        index of a class as `category_id`, `bbox` (x, y, width, height), and perhaps `score` and a
        compressed RLE as `segmentation`; and further fields of its entry.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    ids, count, number_of = list(categories), itertools.count(1), itertools.count(1)

    def add(image: Mapping[str, Any], **entry: Any) -> None:
        image_id, (height, width) = next(number_of), image["size"]
        about = {"id": image_id, "file_name": image["name"], **entry}
        about |= {"width": width, "height": height}
        images.write((", " if image_id > 1 else "") + json.dumps(about))
        for detection in image["objects"]:
            mask, box = detection.get("segmentation"), detection["bbox"]
            area = float(mask_api.area(mask)) if mask else box[2] * box[3]
            number = next(count)
            annotation = {
                "id": number,
                "image_id": image_id,
                **detection,
                "area": area,
                "iscrowd": 0,
            }
            annotation["category_id"] = ids[detection["category_id"]]
            stream.write(",\n" if number > 1 else "\n")
            json.dump(annotation, stream)

    with (
        replace_file(file) as part,
        part.open("w", encoding="utf-8") as stream,
        tempfile.TemporaryFile("w+", encoding="utf-8") as images,  # of any number
    ):
        stream.write('{"annotations": [')
        yield add
        points = keypoints.as_json() if keypoints else {}
        entries = [{"id": key, "name": name, **points} for key, name in categories.items()]
        stream.write('\n],\n"images": [')
        images.seek(0)
        shutil.copyfileobj(images, stream)
        stream.write('],\n"categories": ' + json.dumps(entries) + "}\n")


@contextlib.contextmanager
def writing_segments(
    file: Path, categories: Mapping[int, str], things: Sequence[bool]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write objects with masks in COCO's panoptic format: PNG files in a folder beside the file.

    Of masks that overlap, the one with the higher score has the pixels; `things` says which of the
    `categories` are counted: each object of them is a segment, and all of another class are one.

    Yields:
        A function that adds an image, as that of `writing_predictions`.
    """
    ids, images, annotations = [*categories], list[dict[str, Any]](), list[dict[str, Any]]()
    folder = file.with_suffix("")
    make_folder(folder)

    def add(image: Mapping[str, Any]) -> None:
        key, (height, width) = len(images) + 1, image["size"]
        segments = np.zeros((height, width), np.int64)
        name = Path(image["name"]).with_suffix(".png").name
        require_new(folder / name, image["name"])
        masked = sorted(image["objects"], key=lambda item: item.get("score") or 0)
        if not all("segmentation" in item for item in masked):
            raise ValueError(
                f"{image['name']} has an object without a mask, which is no segment: choose a "
                "model with masks, or another --to"
            )
        labels = [item["category_id"] for item in masked]
        keys = [(label, index * things[label]) for index, label in enumerate(labels, start=1)]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}
        for segment, item in zip(keys, masked, strict=True):
            segments[mask_api.decode(item["segmentation"]) > 0] = numbers[segment]
        described = [
            {"id": number, "category_id": ids[label], "iscrowd": 0} | _measure(segments == number)
            for (label, _), number in numbers.items()
            if (segments == number).any()
        ]
        Image.fromarray(as_rgb(segments)).save(folder / name)
        images.append({"id": key, "file_name": image["name"], "width": width, "height": height})
        annotations.append({"image_id": key, "file_name": name, "segments_info": described})

    yield add
    entries = [
        {"id": key, "name": name, "isthing": int(is_thing)}
        for (key, name), is_thing in zip(categories.items(), things, strict=True)
    ]
    content = {"images": images, "annotations": annotations, "categories": entries}
    write_text(file, json.dumps(content))


def _measure(mask: NDArray[np.bool_]) -> dict[str, Any]:
    code = encode_mask(mask)
    return {"area": int(mask_api.area(code)), "bbox": mask_api.toBbox(code).tolist()}
