"""ImageNet-1K and its variants as they lie on disk (paper, section 2.3.1, Table 5)."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eva_data.classes import find_class_folders, list_names
from eva_data.files import load_json, read_lines
from eva_data.labelled_images import ClassFolders, LabelledImages
from eva_data.transforms import ImageTransform, evaluation_transform

CLASSES = 1000
_NUMBERS = [str(label) for label in range(CLASSES)]
# as the loader of torchvision's ImageFolder reads them
_official_images = functools.partial(ClassFolders, upright=False, on_white=False)
# The 200 classes of ImageNet-A and ImageNet-R: label i of ImageNet-A is label IMAGENET_A[i] of
# ImageNet-1K. Labels follow the sorted folder names (WordNet ids) in all of them.
_SUBSETS = Path(__file__).with_name("imagenet_subsets.csv")
IMAGENET_A, IMAGENET_R = map(tuple, np.loadtxt(_SUBSETS, int, delimiter=",", skiprows=1).T.tolist())


@dataclass(frozen=True, kw_only=True)
class ImageNetTestSet:
    """A test set of models with the 1000 classes of ImageNet-1K.

    `columns` are the classes that compete, in the order of the labels (None: all), and `accepted`
    the correct classes of each image, if not its label alone (an image without any is not counted).
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
) -> list[ImageNetTestSet]:
    """Open the sets that are given, ImageNet-ReaL behind the images of ImageNet-1K.

    See `eva_data.transforms.evaluation_transform` of a model's `image_size`. `bilinear` resizes
    ImageNet-V2 and ObjectNet bilinearly with a crop of all, as the official classification;
    otherwise they have the usual transform, as those of a CLIP. One that is not what its name says
    is an error.
    """
    usual = evaluation_transform(image_size, crop_pct=crop_pct, mean=mean, std=std)
    other = usual
    if bilinear:
        other = evaluation_transform(image_size, interpolation="bilinear", mean=mean, std=std)
    sets, names = list[ImageNetTestSet](), None
    if paths.imagenet is not None:
        sets.append(_opened("ImageNet-1K", paths.imagenet, usual))
        images = sets[0].samples
        names = images.classes
        if paths.real is not None:
            accepted = real_labels(images, paths.real)
            sets.append(ImageNetTestSet(name="ImageNet-ReaL", samples=images, accepted=accepted))
    if paths.v2 is not None:
        images = _official_images(paths.v2, other, classes=_NUMBERS)
        sets.append(ImageNetTestSet(name="ImageNet-V2", samples=images))
    for name, folder, columns in (
        ("ImageNet-A", paths.a, IMAGENET_A),
        ("ImageNet-R", paths.r, IMAGENET_R),
        ("ImageNet-Sketch", paths.sketch, None),
    ):
        if folder is not None:
            sets.append(_opened(name, folder, usual, columns=columns, names=names))
    if paths.objectnet is not None:
        folder, labels, _ = objectnet_labels(paths.objectnet)
        images = _official_images(folder, other, classes=_NUMBERS, labels=labels)
        sets.append(ImageNetTestSet(name="ObjectNet", samples=images))
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
) -> ImageNetTestSet:
    """Open a set whose folders are WordNet ids, all or some of ImageNet-1K's `names`.

    Labels are places among sorted folders: they mean the same only if the folders do.
    """
    folders = find_class_folders(folder)
    samples = _official_images(folder, transform, classes=folders)  # a part may lack some images
    places = range(CLASSES) if columns is None else columns
    expected = folders if names is None else [names[position] for position in places]
    other = [name for name in folders if name not in {*expected}]
    if other or len(folders) != len(places):
        raise ValueError(
            f"{name} has {len(places)} class folders, all of ImageNet-1K; {folder} has "
            f"{len(folders)}: {list_names(other or folders, 4)}"
        )
    return ImageNetTestSet(name=name, samples=samples, columns=columns)


def real_labels(samples: LabelledImages, file: Path) -> list[list[int]]:
    """Read ImageNet-ReaL's labels of each validation image of ImageNet-1K, none if it has none.

    Entry i of the file belongs to `ILSVRC2012_val_{i + 1:08}.JPEG`, in whatever folder that is.
    """
    entries = load_json(file)
    numbered = enumerate(entries if isinstance(entries, list) else [], start=1)
    by_name = {f"ILSVRC2012_val_{number:08}": labels for number, labels in numbered}
    names = [Path(samples.sample_id(index)).stem for index in range(len(samples))]
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(
            f"{file} has no labels of {missing[0]}: it must be real.json of ImageNet-ReaL, and "
            "images are called ILSVRC2012_val_00000001.JPEG and so on, as they were published"
        )
    return [by_name[name] for name in names]


def objectnet_labels(folder: Path) -> tuple[Path, dict[str, int], dict[str, str]]:
    """Find the folders of ObjectNet whose objects are classes of ImageNet-1K.

    Its own mapping files, beside or in the folder, say so. If an object has several classes, only
    the first is correct (officially: 113 folders).

    Returns:
        The folder of the class folders; the label of each class folder; the name of its object.
    """
    images = folder / "images" if (folder / "images").is_dir() else folder
    mappings = images.parent / "mappings"
    objects = load_json(mappings / "folder_to_objectnet_label.json")
    classes = load_json(mappings / "objectnet_to_imagenet_1k.json")
    line_of_label = load_json(mappings / "pytorch_to_imagenet_2012_id.json")
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
    places = {name: index for index, name in enumerate(sorted(labels))}
    names = [str(objects[name]).lower() for name in places]
    return _official_images(images, transform, classes=names, labels=places)
