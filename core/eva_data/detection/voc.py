"""Pascal VOC: `Annotations/*.xml`, `JPEGImages/`, lists in `ImageSets/Main/`; or side by side.

VOC counts pixels from 1 and names the last pixel of a box, so in COCO's way `x = xmin - 1` and
`width = xmax - x`, as detectron2 reads them. Objects that are `difficult` are trained on like
others, as detectron2 does; in scoring they are crowds, which count neither way.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from eva_data.detection.datasets import PART_NAMES, EntryError, Report, refuse
from eva_data.detection.foreign import ForeignDataset, ImageLabels, ImageList, Shape, open_shapes
from eva_data.detection.rules import edges_of, format_value
from eva_data.files import IMAGE_SUFFIXES, read_lines, read_regular
from eva_data.progress import progress

_ANNOTATIONS, _IMAGES, _LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_DIFFICULT = {"": False, "0": False, "false": False, "unspecified": False, "1": True, "true": True}


def find_voc(folder: Path) -> Path | None:
    """Find a VOC dataset in a folder: the folder itself, or the only year of a `VOCdevkit`."""
    if (folder / _ANNOTATIONS).is_dir() or _side_by_side(folder):
        return folder
    below = [folder, *([folder / "VOCdevkit"] if (folder / "VOCdevkit").is_dir() else [])]
    years = [path.parent for folder in below for path in sorted(folder.glob(f"*/{_ANNOTATIONS}"))]
    if len(years) > 1:
        names = ", ".join(map(str, years))
        raise ValueError(f"{folder} holds several VOC datasets: name some of {names} with --data")
    return years[0] if years else None


def open_voc(folder: Path, *, report: Report = refuse) -> ForeignDataset:
    """Read the annotation files of a folder of `find_voc`.

    Its classes are the names of all objects, sorted, as VOC has no list of them.
    """
    folder = folder.absolute()
    if (folder / _ANNOTATIONS).is_dir():
        files, images = folder / _ANNOTATIONS, folder / _IMAGES
        listed = _lists(folder)
        is_split = (folder / _LISTS).is_dir()
        parts = {part: _part(stems, files, images, report) for part, stems in listed.items()}
    else:
        folders = _side_by_side(folder)
        is_split = folder not in folders.values()
        parts = {
            part: _part(_stems(folder), folder, folder, report) for part, folder in folders.items()
        }
    return open_shapes(parts, format="Pascal VOC", source=folder, is_split=is_split)


def _side_by_side(folder: Path) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for part in ("train", "val", "test"):
        for path in (folder / name for name in PART_NAMES[part]):
            # test counts without val alone
            if path.is_dir() and _stems(path) and (part != "test" or "val" not in folders):
                folders.setdefault(part, path)
    if not folders and (stems := {*_stems(folder)}):
        parts = map(os.path.splitext, os.listdir(folder))  # noqa: PTH208
        if any(stem in stems and suffix.lower() in IMAGE_SUFFIXES for stem, suffix in parts):
            return {"train": folder}
    return folders


def _stems(folder: Path) -> list[str]:
    names = sorted(os.listdir(folder))  # noqa: PTH208
    return [name[:-4] for name in names if name.lower().endswith(".xml") and name[0] != "."]


def _lists(folder: Path) -> dict[str, Sequence[str]]:
    """Read the lists: stems of the annotation files of each part; without lists, all for training.

    `trainval` stands in for `train`, without what is evaluated on; `test` is read without `val`.
    """
    files = {name: folder / _LISTS / f"{name}.txt" for name in ("train", "val", "trainval", "test")}
    read = {
        name: list(dict.fromkeys(read_lines(file, skip_blank=True)))
        for name, file in files.items()
        if file.is_file()
    }
    if not read:
        return {"train": _stems(folder / _ANNOTATIONS)}
    part = "val" if read.get("val") else "test"
    scored = read.get(part, [])
    held = {*scored} if "train" not in read else set()
    train = [stem for stem in read.get("train", read.get("trainval", [])) if stem not in held]
    return {name: stems for name, stems in (("train", train), (part, scored)) if stems}


def _part(stems: Sequence[str], files: Path, folder: Path, report: Report) -> ImageList:
    parts = map(os.path.splitext, sorted(os.listdir(folder), reverse=True))  # noqa: PTH208
    by_stem = {stem: stem + suffix for stem, suffix in parts if suffix.lower() in IMAGE_SUFFIXES}
    labels: dict[str, ImageLabels] = {}
    missing = []
    for stem in progress(stems, total=len(stems), title="annotations"):
        path, capitals = files / f"{stem}.xml", files / f"{stem}.XML"
        annotation = _read_annotation(capitals if capitals.is_file() else path, report)
        if annotation is None:
            continue
        filename, image_labels = annotation
        stated = Path(filename.replace("\\", "/")).name
        name = by_stem.get(stem) or by_stem.get(Path(stated).stem, "")
        if not name:
            missing.append(f"{folder / (stated or f'{stem}.jpg')} ({image_labels.location})")
        elif name in labels:
            message = f"{labels[name].location} is of {folder / name} too: remove one"
            report(EntryError("labels.file", image_labels.location, message))
        else:
            labels[name] = image_labels
    return ImageList(folder=folder, names=sorted(labels), labels=labels, missing=missing)


def _read_annotation(file: Path, report: Report) -> tuple[str, ImageLabels] | None:
    """Read the name of the image, and its labels."""
    try:
        root = ElementTree.fromstring(read_regular(file))
        if root.tag != "annotation":
            raise ValueError(
                f"it begins with <{format_value(root.tag)[1:-1]}>, not with <annotation>"
            )
        height, width = (int(_text(root, f"size/{key}") or 0) for key in ("height", "width"))
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        report(EntryError("labels.file", str(file), f"it cannot be read ({error})"))
        return None
    shapes = []
    for number, element in enumerate(root.iterfind("object"), start=1):
        shape = _shape(element)
        if shape is not None:
            shapes.append(shape)
            continue
        content = " ".join(" ".join(element.itertext()).split())
        message = (
            "it must have a name, a bndbox of finite numbers with xmin <= xmax and ymin <= ymax, "
            f"and difficult 0 or 1; got {format_value(content, 200)}"
        )
        report(EntryError("labels.object", f"{file}: object {number}", message))
    sizes = [(height, width)] if height and width else []  # some programs write zeros
    return _text(root, "filename"), ImageLabels(str(file), shapes, sizes)


def _text(element: ElementTree.Element, tag: str) -> str:
    return " ".join((element.findtext(tag) or "").split())


def _shape(element: ElementTree.Element) -> Shape | None:
    name, difficult = _text(element, "name"), _text(element, "difficult").lower()
    edges = edges_of(_text(element, f"bndbox/{key}") for key in _EDGES)
    if not name or edges is None or difficult not in _DIFFICULT:
        return None
    left, top, right, bottom = edges
    return Shape(name, (left - 1, top - 1, right, bottom), difficult=_DIFFICULT[difficult])
