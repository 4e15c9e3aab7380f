"""ImageNet-1K and its variants with the official rules (paper section 2.3.1, Table 5).

All but ImageNet-V2 and ObjectNet use the usual bicubic transform; those two are resized bilinearly.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.listing import listed
from eva_backbone.variants import CLIP_MEAN, CLIP_STD
from eva_data.labelled._imagenet_subsets import IMAGENET_A, IMAGENET_R
from eva_data.labelled.folders import ClassFolders, LabelledImages
from eva_data.transforms import evaluation_transform
from eva_engine.evaluation.counting import AnyLabel, OneLabel, Rule

CLASSES = 1000
_NUMBERS = [str(label) for label in range(CLASSES)]


@dataclass(frozen=True, kw_only=True)
class TestImages:
    """A data set, and the rules that it is judged by in one pass.

    Attributes:
        samples: Images and labels.
        rules: Name in the table -> rule.
    """

    __test__ = False  # no test class of pytest

    samples: LabelledImages
    rules: Mapping[str, Rule]


@dataclass(frozen=True, kw_only=True)
class ImageNetPaths:
    """Where the sets are; None leaves one out.

    Attributes:
        imagenet: ImageNet-1K val, a folder for each WordNet id.
        real: `real.json` of ImageNet-ReaL; it labels `imagenet`.
        v2: ImageNet-V2 matched frequency, folders 0 to 999.
        a: ImageNet-A, 200 folders.
        r: ImageNet-R, 200 folders.
        sketch: ImageNet-Sketch, 1000 folders.
        objectnet: ObjectNet with `images` and `mappings`.
    """

    imagenet: Path | None = None
    real: Path | None = None
    v2: Path | None = None
    a: Path | None = None
    r: Path | None = None
    sketch: Path | None = None
    objectnet: Path | None = None


def open_sets(
    paths: ImageNetPaths,
    *,
    image_size: int,
    crop_pct: float = 1.0,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
) -> list[TestImages]:
    """Open the sets that are given.

    Args:
        paths: Where they are.
        image_size: Side of the model's images.
        crop_pct: Of the usual transform; ImageNet-V2 and ObjectNet have 1.
        mean: Subtracted from the pixels.
        std: Divides them.

    Returns:
        The sets in the paper's order.

    Raises:
        ValueError: If none is given, or one is not what its name says.
    """
    usual = evaluation_transform(image_size, crop_pct=crop_pct, mean=mean, std=std)
    bilinear = evaluation_transform(image_size, interpolation="bilinear", mean=mean, std=std)
    sets, names = [], None
    if paths.real is not None and paths.imagenet is None:
        raise ValueError("ImageNet-ReaL has labels for ImageNet-1K's images: give --imagenet too")
    if paths.imagenet is not None:
        samples = ClassFolders(paths.imagenet, usual)
        names = _check_classes(samples, CLASSES, "ImageNet-1K")
        rules: dict[str, Rule] = {"ImageNet-1K": OneLabel()}
        if paths.real is not None:
            rules["ImageNet-ReaL"] = AnyLabel(real_labels(samples, paths.real))
        sets.append(TestImages(samples=samples, rules=rules))
    if paths.v2 is not None:
        v2 = ClassFolders(paths.v2, bilinear, classes=_NUMBERS)
        sets.append(TestImages(samples=v2, rules={"ImageNet-V2": OneLabel()}))
    for name, folder, columns in (
        ("ImageNet-A", paths.a, IMAGENET_A),
        ("ImageNet-R", paths.r, IMAGENET_R),
    ):
        if folder is not None:
            samples = ClassFolders(folder, usual)
            found = _check_classes(samples, len(columns), name)
            _compare(found, None if names is None else [names[i] for i in columns], name)
            sets.append(TestImages(samples=samples, rules={name: OneLabel(columns)}))
    if paths.sketch is not None:
        samples = ClassFolders(paths.sketch, usual)
        _compare(_check_classes(samples, CLASSES, "ImageNet-Sketch"), names, "ImageNet-Sketch")
        sets.append(TestImages(samples=samples, rules={"ImageNet-Sketch": OneLabel()}))
    if paths.objectnet is not None:
        images, labels = objectnet_labels(paths.objectnet)
        samples = ClassFolders(images, bilinear, classes=_NUMBERS, labels=labels)
        sets.append(TestImages(samples=samples, rules={"ObjectNet": OneLabel()}))
    if not sets:
        raise ValueError(
            "there is nothing to evaluate: give --data, or --imagenet and its variants"
        )
    return sets


def real_labels(samples: LabelledImages, file: Path) -> list[list[int]]:
    """Labels of ImageNet-ReaL for ImageNet-1K's validation images.

    Entry i of the file belongs to `ILSVRC2012_val_{i + 1:08}.JPEG`, in whatever folder that is.

    Args:
        samples: The images.
        file: `real.json`.

    Returns:
        For each image its labels, none for those that do not count.

    Raises:
        ValueError: If the file is not it, or an image has another name.
    """
    entries = _read_json(file)
    if not isinstance(entries, list) or not all(
        isinstance(entry, list) and all(isinstance(label, int) for label in entry)
        for entry in entries
    ):
        raise ValueError(f"{file} is not real.json of ImageNet-ReaL, a list of lists of labels")
    result: list[list[int]] = []
    for index in range(len(samples)):
        name = samples.sample_id(index)
        match = re.search(r"ILSVRC2012_val_(\d{8})(\.\w+)?$", name)
        number = int(match.group(1)) if match else 0
        if not 1 <= number <= len(entries):
            raise ValueError(
                f"{name} has no labels in {file.name}: images must be called "
                f"ILSVRC2012_val_00000001.JPEG to {len(entries):08}, as they were published"
            )
        result.append(entries[number - 1])
    return result


def objectnet_labels(folder: Path) -> tuple[Path, dict[str, int]]:
    """Folders of ObjectNet whose objects are classes of ImageNet-1K, by its own mapping files.

    Of an object with several classes the first alone is right (officially: 113 folders).

    Args:
        folder: Has `images` and `mappings`; or the images' folder, with `mappings` beside it.

    Returns:
        The folder of the class folders, and class folder -> label.

    Raises:
        ValueError: If a mapping file is missing or does not fit the others.
    """
    images = folder / "images" if (folder / "images").is_dir() else folder
    mappings = images.parent / "mappings"
    objects = _read_json(mappings / "folder_to_objectnet_label.json")
    classes = _read_json(mappings / "objectnet_to_imagenet_1k.json")
    line_of_label = _read_json(mappings / "pytorch_to_imagenet_2012_id.json")
    lines = [line.strip() for line in _read(mappings / "imagenet_to_label_2012_v2").splitlines()]
    try:
        label_of = {lines[int(line)]: int(label) for label, line in line_of_label.items()}
        labels = {
            name: label_of[classes[thing].split("; ")[0].strip()]
            for name, thing in objects.items()
            if thing in classes
        }
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the mapping files in {mappings} do not fit together ({type(error).__name__}: "
            f"{error}); take all of them from one download of ObjectNet"
        ) from error
    return images, labels


def _check_classes(samples: LabelledImages, number: int, name: str) -> Sequence[str]:
    if len(samples.classes) != number:
        raise ValueError(
            f"{name} has {number} class folders, but there are {len(samples.classes)}: "
            f"{listed(list(samples.classes), 4)}"
        )
    return samples.classes


def _compare(found: Sequence[str], expected: Sequence[str] | None, name: str) -> None:
    """Labels are places among sorted folders: they mean the same only if the folders do."""
    if expected is not None and list(found) != list(expected):
        other = [a for a, b in zip(found, expected, strict=True) if a != b]
        raise ValueError(
            f"the class folders of {name} are not those of ImageNet-1K that belong to it: "
            f"{listed(other, 4)}"
        )


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(_read(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON file ({error})") from error
