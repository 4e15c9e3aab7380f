"""ImageNet-1K and its variants as they lie on disk, with what the official evaluation says of each.

It is section 2.3.1 of the paper, Table 5. All sets but ImageNet-V2 and ObjectNet use the usual
bicubic transform; those two are resized bilinearly.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_data.classes import listed
from eva_data.files import read_lines
from eva_data.labelled_images import ClassFolders, LabelledImages
from eva_data.transforms import ImageTransform, evaluation_transform

CLASSES = 1000
_NUMBERS = [str(label) for label in range(CLASSES)]
# The 200 classes of ImageNet-A and ImageNet-R: label i of ImageNet-A is label IMAGENET_A[i] of
# ImageNet-1K. Labels follow the sorted folder names (WordNet ids) in all of them.
# fmt: off
IMAGENET_A: tuple[int, ...] = (
    6, 11, 13, 15, 17, 22, 23, 27, 30, 37, 39, 42, 47, 50, 57, 70, 71, 76, 79, 89, 90, 94, 96,
    97, 99, 105, 107, 108, 110, 113, 124, 125, 130, 132, 143, 144, 150, 151, 207, 234, 235, 254,
    277, 283, 287, 291, 295, 298, 301, 306, 307, 308, 309, 310, 311, 313, 314, 315, 317, 319,
    323, 324, 326, 327, 330, 334, 335, 336, 347, 361, 363, 372, 378, 386, 397, 400, 401, 402,
    404, 407, 411, 416, 417, 420, 425, 428, 430, 437, 438, 445, 456, 457, 461, 462, 470, 472,
    483, 486, 488, 492, 496, 514, 516, 528, 530, 539, 542, 543, 549, 552, 557, 561, 562, 569,
    572, 573, 575, 579, 589, 606, 607, 609, 614, 626, 627, 640, 641, 642, 643, 658, 668, 677,
    682, 684, 687, 701, 704, 719, 736, 746, 749, 752, 758, 763, 765, 768, 773, 774, 776, 779,
    780, 786, 792, 797, 802, 803, 804, 813, 815, 820, 823, 831, 833, 835, 839, 845, 847, 850,
    859, 862, 870, 879, 880, 888, 890, 897, 900, 907, 913, 924, 932, 933, 934, 937, 943, 945,
    947, 951, 954, 956, 957, 959, 971, 972, 980, 981, 984, 986, 987, 988,
)
IMAGENET_R: tuple[int, ...] = (
    1, 2, 4, 6, 8, 9, 11, 13, 22, 23, 26, 29, 31, 39, 47, 63, 71, 76, 79, 84, 90, 94, 96, 97,
    99, 100, 105, 107, 113, 122, 125, 130, 132, 144, 145, 147, 148, 150, 151, 155, 160, 161,
    162, 163, 171, 172, 178, 187, 195, 199, 203, 207, 208, 219, 231, 232, 234, 235, 242, 245,
    247, 250, 251, 254, 259, 260, 263, 265, 267, 269, 276, 277, 281, 288, 289, 291, 292, 293,
    296, 299, 301, 308, 309, 310, 311, 314, 315, 319, 323, 327, 330, 334, 335, 337, 338, 340,
    341, 344, 347, 353, 355, 361, 362, 365, 366, 367, 368, 372, 388, 390, 393, 397, 401, 407,
    413, 414, 425, 428, 430, 435, 437, 441, 447, 448, 457, 462, 463, 469, 470, 471, 472, 476,
    483, 487, 515, 546, 555, 558, 570, 579, 583, 587, 593, 594, 596, 609, 613, 617, 621, 629,
    637, 657, 658, 701, 717, 724, 763, 768, 774, 776, 779, 780, 787, 805, 812, 815, 820, 824,
    833, 847, 852, 866, 875, 883, 889, 895, 907, 928, 931, 932, 933, 934, 936, 937, 943, 945,
    947, 948, 949, 951, 953, 954, 957, 963, 965, 967, 980, 981, 983, 988,
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A test set of models with the 1000 classes of ImageNet-1K.

    Attributes:
        name: Name in tables.
        samples: Images and labels; sets of the same images share them.
        columns: Classes that compete, in the order of the labels; None for all.
        accepted: Correct classes of each image, if not its label alone; none if it does not count.
    """

    __test__ = False  # not a test class of pytest

    name: str
    samples: LabelledImages
    columns: Sequence[int] | None = None
    accepted: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True, kw_only=True)
class ImageNetPaths:
    """Where the sets are; None leaves one out.

    `imagenet`, `a`, `r` and `sketch` have a folder for each WordNet id, `v2` (matched frequency)
    folders 0 to 999; `real` is `real.json` and labels `imagenet`; see `objectnet_labels`.
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
    mean: Sequence[float],
    std: Sequence[float],
    crop_pct: float = 1.0,
    bilinear: bool = True,
) -> list[TestSet]:
    """Open the sets that are given.

    Args:
        paths: Where they are.
        image_size: Side of the model's images.
        mean: Mean of the pixels, for each channel.
        std: Their standard deviation.
        crop_pct: Share of the crop in the usual transform.
        bilinear: Resize ImageNet-V2 and ObjectNet bilinearly with a crop of all, as the official
            classification; otherwise they have the usual transform, as those of a CLIP.

    Returns:
        The sets, ImageNet-ReaL behind the images of ImageNet-1K that it labels.

    Raises:
        OSError: If a file of labels is missing.
        ValueError: If none is given, or one is not what its name says.
    """
    usual = evaluation_transform(image_size, crop_pct=crop_pct, mean=mean, std=std)
    other = usual
    if bilinear:
        other = evaluation_transform(image_size, interpolation="bilinear", mean=mean, std=std)
    sets: list[TestSet] = []
    names = None
    if paths.imagenet is not None:
        sets.append(_opened("ImageNet-1K", paths.imagenet, usual))
        images = sets[0].samples
        names = images.classes
        if paths.real is not None:
            accepted = real_labels(images, paths.real)
            sets.append(TestSet(name="ImageNet-ReaL", samples=images, accepted=accepted))
    if paths.v2 is not None:
        images = ClassFolders(paths.v2, other, classes=_NUMBERS, upright=False)
        sets.append(TestSet(name="ImageNet-V2", samples=images))
    for name, folder, columns in (
        ("ImageNet-A", paths.a, IMAGENET_A),
        ("ImageNet-R", paths.r, IMAGENET_R),
        ("ImageNet-Sketch", paths.sketch, None),
    ):
        if folder is not None:
            sets.append(_opened(name, folder, usual, columns=columns, names=names))
    if paths.objectnet is not None:
        folder, labels, _ = objectnet_labels(paths.objectnet)
        images = ClassFolders(folder, other, classes=_NUMBERS, labels=labels, upright=False)
        sets.append(TestSet(name="ObjectNet", samples=images))
    if not sets or (paths.real is not None and paths.imagenet is None):
        raise ValueError(
            "give --data, or --imagenet and its variants; ImageNet-ReaL has labels for "
            "ImageNet-1K's images, and needs --imagenet"
        )
    return sets


def _opened(
    name: str,
    folder: Path,
    transform: ImageTransform,
    *,
    columns: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> TestSet:
    """Open a set whose folders are WordNet ids, all or some of ImageNet-1K's `names`.

    Labels are places among sorted folders: they mean the same only if the folders do.
    """
    samples = ClassFolders(folder, transform, upright=False)
    found = samples.classes
    places = range(CLASSES) if columns is None else columns
    expected = found if names is None else [names[place] for place in places]
    other = [name for name in found if name not in {*expected}]
    if other or len(found) != len(places):
        raise ValueError(
            f"{name} has {len(places)} class folders, all of ImageNet-1K; {folder} has "
            f"{len(found)}: {listed(other or found, 4)}"
        )
    return TestSet(name=name, samples=samples, columns=columns)


def real_labels(samples: LabelledImages, file: Path) -> list[list[int]]:
    """Read ImageNet-ReaL's labels of each validation image of ImageNet-1K, none if it has none.

    Entry i of the file belongs to `ILSVRC2012_val_{i + 1:08}.JPEG`, in whatever folder that is.
    """
    entries = _read_json(file)
    lists = isinstance(entries, list) and all(isinstance(entry, list) for entry in entries)
    if not lists or not all(isinstance(label, int) for entry in entries for label in entry):
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


def objectnet_labels(folder: Path) -> tuple[Path, dict[str, int], dict[str, str]]:
    """Find the folders of ObjectNet whose objects are classes of ImageNet-1K.

    Its own mapping files, beside or in the folder, say so. If an object has several classes, only
    the first is correct (officially: 113 folders).

    Returns:
        The folder of the class folders; the label of each class folder; the name of its object.
    """
    images = folder / "images" if (folder / "images").is_dir() else folder
    mappings = images.parent / "mappings"
    objects = _read_json(mappings / "folder_to_objectnet_label.json")
    classes = _read_json(mappings / "objectnet_to_imagenet_1k.json")
    line_of_label = _read_json(mappings / "pytorch_to_imagenet_2012_id.json")
    lines = read_lines(mappings / "imagenet_to_label_2012_v2")
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
    return images, labels, objects


def open_objectnet(folder: Path, transform: ImageTransform) -> ClassFolders:
    """Open ObjectNet with its own names of the objects that are classes of ImageNet-1K too.

    These 113 compete with each other where a model takes any names, as in CLIP_benchmark.
    """
    images, labels, objects = objectnet_labels(folder)
    places = {name: place for place, name in enumerate(sorted(labels))}
    names = [str(objects[name]).lower() for name in places]
    return ClassFolders(images, transform, classes=names, labels=places, upright=False)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not a JSON file ({error})") from error
