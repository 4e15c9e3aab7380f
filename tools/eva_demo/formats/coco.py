"""Digit scenes in COCO's instance format: the writer and its own check.

Besides COCO's keys an image has `photo` and an annotation `digit_index`, from which the check
proves that training and validation are disjoint.
"""

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eva_demo.formats.format import Format, demand, demand_disjoint, save_picture

if TYPE_CHECKING:
    from eva_demo.scenes import Scene
    from eva_demo.splits import Split

_CATEGORIES = tuple(str(digit) for digit in range(10))  # category id = digit + 1


def _prepare(folder: Path, split: "Split") -> None:
    (folder / split).mkdir(parents=True)


def _finish(folder: Path, scenes: Mapping["Split", list[Any]]) -> list[Path]:
    """Write `annotations/instances_{train,val}.json`."""
    (folder / "annotations").mkdir()
    written = []
    for split, entries in scenes.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image, image_annotations in entries:
            images.append(image)
            for annotation in image_annotations:
                annotations.append({"id": len(annotations) + 1, **annotation})
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(_header() | {"images": images, "annotations": annotations}))
        written.append(path)
    return written


def _header() -> dict[str, Any]:
    return {
        "info": {"description": "Digit scenes: scikit-learn digits on scikit-image photographs"},
        "licenses": [{"id": 1, "name": "See scikit-learn (digits) and scikit-image (photographs)"}],
        "categories": [
            {"id": number + 1, "name": name, "supercategory": "digit"}
            for number, name in enumerate(_CATEGORIES)
        ],
    }


def _export(
    folder: Path, split: "Split", index: int, scene: "Scene"
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the picture `{train,val}/*.jpg`; return COCO's entries of image and annotations."""
    import numpy as np
    from pycocotools import mask as rle

    height, width = scene.image.shape[:2]
    name = f"{index + 1:06d}.jpg"
    save_picture(scene, folder / split / name)
    image = {"id": index + 1, "file_name": name, "height": height, "width": width, "license": 1}
    annotations = []
    for instance in scene.instances:
        encoded = rle.encode(np.asfortranarray(instance.mask, dtype=np.uint8))
        x0, y0, x1, y1 = instance.box.tolist()
        annotations.append(
            {
                "image_id": index + 1,
                "category_id": instance.category + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(instance.mask.sum()),
                "segmentation": {"size": [height, width], "counts": encoded["counts"].decode()},
                "iscrowd": 0,
                "digit_index": instance.digit_index,
            }
        )
    return {**image, "photo": scene.background}, annotations


def _check(folder: Path) -> None:
    """Check the annotation files against the pictures, each other and the rules of the data set."""
    from pycocotools.coco import COCO

    photos: dict[str, set[str]] = {}
    digits: dict[str, set[int]] = {}
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}.json"
        demand(path.is_file(), f"{path} is missing")
        content = json.loads(path.read_text())
        for kind in ("images", "annotations", "categories"):
            ids = [entry["id"] for entry in content[kind]]
            demand(len(ids) == len(set(ids)), f"{path}: ids of {kind} are not unique")
            demand(min(ids, default=1) >= 1, f"{path}: {kind} has id {min(ids, default=1)} < 1")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints
            coco = COCO(str(path))
        for image in coco.dataset["images"]:
            _check_image(coco, image, folder=folder / split, where=path.name)
        orphans = {entry["image_id"] for entry in content["annotations"]} - set(coco.imgs)
        demand(not orphans, f"{path}: annotations name images that do not exist: {sorted(orphans)}")
        photos[split] = {image["photo"] for image in content["images"]}
        digits[split] = {annotation["digit_index"] for annotation in content["annotations"]}
    demand_disjoint(folder, "photographs", photos["train"], photos["val"])
    demand_disjoint(folder, "digits", digits["train"], digits["val"])


def _check_image(coco: Any, image: Mapping[str, Any], *, folder: Path, where: str) -> None:
    """Check one image of a loaded `COCO` and all its annotations."""
    import numpy as np
    from PIL import Image

    height, width = image["height"], image["width"]
    path = folder / image["file_name"]
    demand(path.is_file(), f"{where}, image {image['id']}: {path} is missing")
    with Image.open(path) as picture:
        demand(
            picture.size == (width, height),
            f"{where}, image {image['id']}: {path} is {picture.size}, not {(width, height)}",
        )
    for annotation in coco.imgToAnns[image["id"]]:
        entry = f"{where}, annotation {annotation['id']}"
        demand(
            annotation["category_id"] in coco.cats,
            f"{entry}: category_id {annotation['category_id']} is not in {sorted(coco.cats)}",
        )
        size = annotation["segmentation"]["size"]
        demand(size == [height, width], f"{entry}: mask is {size}, its image is {[height, width]}")
        mask = coco.annToMask(annotation)
        area = int(mask.sum())
        demand(area > 0, f"{entry}: the mask is empty")
        demand(annotation["area"] == area, f"{entry}: area {annotation['area']}, mask {area}")
        ys, xs = np.nonzero(mask)
        x, y = int(xs.min()), int(ys.min())
        bounds = [x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y]
        demand(
            annotation["bbox"] == bounds,
            f"{entry}: bbox {annotation['bbox']}, but the mask's bounds are {bounds}",
        )
        demand(annotation["iscrowd"] == 0, f"{entry}: iscrowd is {annotation['iscrowd']}, not 0")


COCO_INSTANCES = Format(_prepare, _export, _finish, _check)
