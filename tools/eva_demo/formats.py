"""Digit scenes in COCO's formats, image folders, semantic maps, Pascal VOC and YOLO; all formats.

COCO, folders and maps also say which handwritten digits and photographs each image shows, from
which anyone can prove that training and validation are disjoint.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from eva_data.label_files import outline, render_template
from eva_demo.captions import CaptionGenerator, export_captions, finish_captions
from eva_demo.clips import ClipGenerator, export_clip, finish_clips
from eva_demo.scenes import Scene, SceneGenerator
from eva_demo.sources import Generator, Split, write_texts

_QUALITY = 93
_CROP = 64  # pixels of an image in the class folders
_VISIBLE = 0.8  # least share of such a digit that later digits have not covered
_MARGIN = 0.15  # surroundings on each side, as a share of the digit's longer side
_ADE = {"train": "training", "val": "validation"}  # ADE20K's names
POINTS = ("centre", "top", "bottom", "left", "right")  # of the visible part of a digit
COLORS: Mapping[str, tuple[int, int, int]] = {  # of the labels 1, 2, ...
    "brick": (178, 82, 62),
    "grass": (74, 160, 44),
    "gravel": (140, 140, 150),
    "other": (52, 101, 164),
    "digit": (252, 200, 20),
}


class Format(NamedTuple):
    """How one format is written into its folder.

    Attributes:
        export: Called with folder, split, index and what the generator made, for all scenes of a
            split from several processes; returns what `finish` needs of it.
        finish: Called with folder and these of each split, in order; writes the lists.
        generator: Its `make(index)` makes what is exported.
    """

    export: Callable[[Path, Split, int, Any], Any]
    finish: Callable[[Path, Mapping[Split, list[Any]]], None]
    generator: type[Generator] = SceneGenerator

    def make_generator(self, split: Split, size: int, seed: int) -> Any:
        """Make the generator for scenes of `size` pixels; clips and captions have half of it."""
        if self.generator is SceneGenerator:  # digits grow with the image
            digit_px = (round(size * 22 / 128), round(size * 56 / 128))
            return SceneGenerator(split, size=size, digit_px=digit_px, seed=seed)
        return self.generator(split, size=size // 4 * 2, seed=seed)


def _save(pixels: NDArray[Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.uint16:
        layout: Any = {"photometric": "minisblack", "planarconfig": "contig"}
        tifffile.imwrite(file.with_suffix(".tif"), pixels, compression="zlib", **layout)
        return
    # for PNG, both are without effect
    Image.fromarray(pixels).save(file, quality=_QUALITY, subsampling=0)


def _export_coco(
    folder: Path, split: Split, index: int, scene: Scene
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write `{train,val}/*.jpg`; return COCO's entries of image and annotations."""
    height, width = scene.image.shape[:2]
    name = f"{index + 1:06d}.jpg"
    _save(scene.image, folder / split / name)
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


def _finish_coco(
    folder: Path, exported: Mapping[Split, list[Any]], **of_categories: Sequence[Any]
) -> None:
    """Write `annotations/instances_{train,val}.json`."""
    header = {
        "info": {"description": "Digit scenes: scikit-learn digits on scikit-image photographs"},
        "licenses": [{"id": 1, "name": "See scikit-learn (digits) and scikit-image (photographs)"}],
        "categories": [
            {"id": digit + 1, "name": str(digit), "supercategory": "digit", **of_categories}
            for digit in range(10)
        ],
    }
    texts = {}
    for split, entries in exported.items():
        flattened = [annotation for _, annotations in entries for annotation in annotations]
        content = header | {
            "images": [image for image, _ in entries],
            "annotations": [
                {"id": number, **annotation} for number, annotation in enumerate(flattened, start=1)
            ],
        }
        texts[f"annotations/instances_{split}.json"] = json.dumps(content)
    write_texts(folder, texts)


def _export_keypoints(
    folder: Path, split: Split, index: int, scene: Scene
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Add the points of each digit to COCO's entries; all of them are visible."""
    image, annotations = _export_coco(folder, split, index, scene)
    for annotation, instance in zip(annotations, scene.instances, strict=True):
        ys, xs = np.nonzero(instance.mask)
        edges = (ys == ys.min(), ys == ys.max(), xs == xs.min(), xs == xs.max())
        points = [(xs[edge].mean(), ys[edge].mean()) for edge in (ys >= 0, *edges)]
        values = [value for x, y in points for value in (round(x), round(y), 2)]
        annotation.update(keypoints=values, num_keypoints=len(points))
    return image, annotations


def _finish_keypoints(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write the files of COCO's instances, whose categories list the points."""
    edges = [[1, number] for number in range(2, len(POINTS) + 1)]
    _finish_coco(folder, exported, keypoints=POINTS, skeleton=edges)


def _export_panoptic(
    folder: Path, split: Split, index: int, scene: Scene
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write an image and its segments, the photograph's the first; return COCO's two entries."""
    height, width = scene.image.shape[:2]
    name, labels = f"{index + 1:06d}", list(COLORS)
    ids = np.ones((height, width), np.uint8)
    segments: list[dict[str, Any]] = [
        {"id": 1, "category_id": 11 + labels.index(scene.background_class)}
    ]
    for number, instance in enumerate(scene.instances, start=2):
        ids[instance.mask] = number
        segments.append({"id": number, "category_id": instance.category + 1})
    for segment in segments:
        code = rle.encode(np.asfortranarray(ids == segment["id"], np.uint8))
        x, y, *size = map(int, rle.toBbox(code))
        segment.update(area=int(rle.area(code)), bbox=[x, y, *size], iscrowd=0)
    _save(scene.image, folder / split / f"{name}.jpg")
    rgb = np.stack([ids, np.zeros_like(ids), np.zeros_like(ids)], axis=2)  # red + 256 * green + ...
    _save(rgb, folder / f"annotations/panoptic_{split}/{name}.png")
    image = {"id": index + 1, "file_name": f"{name}.jpg", "height": height, "width": width}
    annotation = {"image_id": index + 1, "file_name": f"{name}.png", "segments_info": segments}
    return image, annotation


def _finish_panoptic(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write `annotations/panoptic_{train,val}.json`: digits are things, photographs stuff."""
    names = [*map(str, range(10)), *(name for name in COLORS if name != "digit")]
    categories = [
        {"id": number, "name": name, "isthing": int(number <= 10)}
        for number, name in enumerate(names, start=1)
    ]
    for split, entries in exported.items():
        images, annotations = ([*column] for column in zip(*entries, strict=True))
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_texts(folder, {f"annotations/panoptic_{split}.json": json.dumps(content)})


def _export_folder(folder: Path, split: Split, index: int, scene: Scene) -> dict[str, int]:
    """Write each digit that is mostly visible into `{train,val}/CLASS/SCENE_NUMBER.png`.

    Returns:
        Which handwritten digit each file shows.
    """
    entries = {}
    for number, instance in enumerate(scene.instances):
        if instance.mask.sum() < _VISIBLE * instance.full_area:
            continue
        left, top, right, bottom = instance.box.astype(int)
        side = max(bottom - top, right - left) * (1 + 2 * _MARGIN)
        y, x = (top + bottom - side) / 2, (left + right - side) / 2
        # beyond the scene's edge the crop would be black, unlike any photograph
        height, width = scene.image.shape[:2]
        y, x = np.clip([y, x], 0, [max(0.0, height - side), max(0.0, width - side)])
        box = (x, y, min(x + side, width), y + side)
        planes = [scene.image] if scene.image.shape[2] == 3 else np.moveaxis(scene.image, 2, 0)
        crops = [
            Image.fromarray(plane).resize((_CROP, _CROP), Image.Resampling.BICUBIC, box=box)
            for plane in planes
        ]
        name = f"{instance.category}/{index + 1:06d}_{number}.png"
        _save(np.dstack([np.asarray(crop) for crop in crops]), folder / split / name)
        entries[name] = instance.digit_index
    return entries


def _finish_folder(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write `digits.json`."""
    digits = {
        split: {name: digit for entries in scenes for name, digit in entries.items()}
        for split, scenes in exported.items()
    }
    write_texts(folder, {"digits.json": json.dumps(digits)})


def _export_semantic(folder: Path, split: Split, index: int, scene: Scene) -> dict[str, Any]:
    """Write an image and its map in ADE20K's layout; return its entry in `scenes.json`.

    The four kinds of background and the digits are the five classes. Label 0 is unlabelled: the
    pixels around a digit, where JPEG mixes both.
    """
    name, labels = f"{index + 1:06d}", list(COLORS)
    digits = np.any([instance.mask for instance in scene.instances], axis=0)
    around = cv2.dilate(digits.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    label_map = np.full(digits.shape, labels.index(scene.background_class) + 1, np.uint8)
    label_map[around] = 0
    label_map[digits] = labels.index("digit") + 1
    _save(scene.image, folder / "images" / _ADE[split] / f"{name}.jpg")
    _save(label_map, folder / "annotations" / _ADE[split] / f"{name}.png")
    return {
        "name": name,
        "photo": scene.background,
        "digits": [instance.digit_index for instance in scene.instances],
        "pixels": np.bincount(label_map.ravel(), minlength=len(labels) + 1).tolist(),
    }


def _finish_semantic(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write `classes.toml`, which `segmentation/train.py --classes` reads, and `scenes.json`."""
    classes = zip(COLORS, range(1, len(COLORS) + 1), COLORS.values(), strict=True)
    content = render_template("classes.toml", classes=classes, ignore=0)
    contents = json.dumps({_ADE[split]: scenes for split, scenes in exported.items()})
    write_texts(folder, {"classes.toml": content, "scenes.json": contents})


def _export_bands(folder: Path, split: Split, index: int, scene: Scene) -> tuple[Any, Any, Any]:
    """Write a scene of five bands of 16 bits for three tasks; digits are in the fourth alone.

    The first three are the photograph's red, green and blue, the fourth is the scene's grey, the
    fifth noise; as of a sensor, values begin above 0 and end far below 65,535.
    """
    noise = np.random.default_rng(index).integers(0, 256, scene.image.shape[:2])
    grey = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY)
    image = np.dstack([scene.photograph, grey, noise]).astype(np.uint16) * 12 + 700
    scene = replace(scene, image=image)
    entry, annotations = _export_coco(folder / "coco", split, index, scene)
    entry["file_name"] = f"{index + 1:06d}.tif"
    semantic = _export_semantic(folder / "semantic", split, index, scene)
    return (entry, annotations), semantic, _export_folder(folder / "folder", split, index, scene)


def _finish_bands(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write the lists of the three tasks."""
    finishes = {"coco": _finish_coco, "semantic": _finish_semantic, "folder": _finish_folder}
    for number, (name, finish) in enumerate(finishes.items()):
        finish(
            folder / name,
            {split: [entry[number] for entry in exported[split]] for split in exported},
        )


def _export_voc(folder: Path, split: Split, index: int, scene: Scene) -> str:
    """Write an image and its boxes for Pascal VOC; return their name without suffix."""
    name = f"{split}_{index + 1:06d}"
    _save(scene.image, folder / "JPEGImages" / f"{name}.jpg")
    objects = [
        {"name": instance.category, "box": instance.box.tolist()} for instance in scene.instances
    ]
    image = {"name": f"{name}.jpg", "size": scene.image.shape[:2], "objects": objects}
    content = render_template("voc.xml", **image)
    write_texts(folder, {f"Annotations/{name}.xml": content})
    return name


def _finish_voc(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write the lists of names."""
    lists = {
        f"ImageSets/Main/{split}.txt": "".join(f"{name}\n" for name in names)
        for split, names in exported.items()
    }
    write_texts(folder, lists)


def _export_yolo(folder: Path, split: Split, index: int, scene: Scene) -> None:
    """Write an image and its outlines."""
    name = f"{index + 1:06d}"
    _save(scene.image, folder / "images" / split / f"{name}.jpg")
    objects = [
        {"number": instance.category, "line": outline(instance.mask)}
        for instance in scene.instances
    ]
    content = render_template("yolo.txt", size=scene.image.shape[:2], objects=objects)
    write_texts(folder, {f"labels/{split}/{name}.txt": content})


def _finish_yolo(folder: Path, exported: Mapping[Split, list[Any]]) -> None:
    """Write `data.yaml`."""
    content = "# path: where train and val are; left out, it is the folder of this file\n"
    content += render_template("data.yaml", names=[str(digit) for digit in range(10)], val="val")
    write_texts(folder, {"data.yaml": content})


# Name -> format; the name is that of its folder in the dataset.
FORMATS: Mapping[str, Format] = {
    "bands": Format(_export_bands, _finish_bands),
    "captions": Format(export_captions, finish_captions, CaptionGenerator),
    "coco": Format(_export_coco, _finish_coco),
    "folder": Format(_export_folder, _finish_folder),
    "keypoints": Format(_export_keypoints, _finish_keypoints),
    "panoptic": Format(_export_panoptic, _finish_panoptic),
    "semantic": Format(_export_semantic, _finish_semantic),
    "video": Format(export_clip, finish_clips, ClipGenerator),
    "voc": Format(_export_voc, _finish_voc),
    "yolo": Format(_export_yolo, _finish_yolo),
}
