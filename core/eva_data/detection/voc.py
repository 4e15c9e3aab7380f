"""Pascal VOC: `Annotations/*.xml`, `JPEGImages/`, and lists in `ImageSets/Main/`.

Roboflow's exports, with images and annotations side by side in `train/` and `valid/`, are read too.
VOC counts pixels from 1 and names the last pixel of a box, so in COCO's way `x = xmin - 1` and
`width = xmax - x`, as detectron2 reads them. Objects that are `difficult` are trained on like
others, as detectron2 does; in scoring they are crowds, which count neither way.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from eva_data.detection.coco import ImageList, LabelledImages, Report, box_inside, refuse
from eva_data.detection.rules import Size, shown
from eva_data.files import IMAGE_SUFFIXES, LISTED_IMAGE_SUFFIXES, read_lines
from eva_data.progress import progress

_ANNOTATIONS, _IMAGES, _LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_WITH_SIGN = re.compile(r"(.*\S)\s+-?[01]")  # a line of the list of a class
_SIDE_BY_SIDE = {"train": ("train",), "val": ("valid", "val")}


@dataclass(frozen=True, slots=True)
class _Annotation:
    """The content of an annotation file; objects are (class, edges in pixels from 1, difficult)."""

    file: Path
    filename: str
    size: Size | None
    objects: tuple[tuple[str, list[float], bool], ...]


def find_voc(folder: Path) -> Path | None:
    """Find a VOC dataset in a folder: the folder itself, or the only year of a `VOCdevkit`.

    Raises:
        ValueError: If there are several years.
    """
    if (folder / _ANNOTATIONS).is_dir() or _side_by_side(folder):
        return folder
    below = [folder, *([folder / "VOCdevkit"] if (folder / "VOCdevkit").is_dir() else [])]
    years = [path.parent for one in below for path in sorted(one.glob(f"*/{_ANNOTATIONS}"))]
    if len(years) > 1:
        names = ", ".join(map(str, years))
        raise ValueError(
            f"{folder} holds several VOC datasets: name one of {names}, or several, each with "
            "--data"
        )
    return years[0] if years else None


def open_voc(folder: Path, *, report: Report = refuse) -> LabelledImages:
    """Read the annotation files of a VOC dataset.

    Args:
        folder: Folder with `Annotations`, or with `train` and `valid`.
        report: Takes an error of a file or object, which is left out if it returns.

    Returns:
        The dataset; its classes are the names of all objects, sorted, as VOC has no list of them.

    Raises:
        ValueError: If a list, an annotation file or an image is missing or wrong.
    """
    folder = folder.absolute()
    if (folder / _ANNOTATIONS).is_dir():
        files, images = folder / _ANNOTATIONS, folder / _IMAGES
        if not images.is_dir():
            raise ValueError(f"{folder} has {_ANNOTATIONS}, and no folder {_IMAGES}")
        listed = _lists(folder)
        parts = {part: _part(stems, files, images, report) for part, stems in listed.items()}
    else:
        found = _side_by_side(folder)
        parts = {part: _part(_stems(place), place, place, report) for part, place in found.items()}
    annotations = [one for part in parts.values() for one in part.labels.values()]
    classes = sorted({name for one in annotations for name, _, _ in one.objects})
    if not classes:
        raise ValueError(f"{folder}: none of its {len(annotations)} files has an object")
    ids = {name: number for number, name in enumerate(classes, start=1)}
    return LabelledImages(
        format="Pascal VOC",
        source=folder,
        classes=classes,
        parts=parts,
        read=functools.partial(_objects, ids),
    )


def _side_by_side(folder: Path) -> dict[str, Path]:
    places = {
        part: [folder / name for name in names if (folder / name).is_dir()]
        for part, names in _SIDE_BY_SIDE.items()
    }
    found = {part: [one for one in few if _stems(one)] for part, few in places.items()}
    return {part: few[0] for part, few in found.items() if few}


def _stems(folder: Path) -> list[str]:
    names = sorted(os.listdir(folder))  # noqa: PTH208
    return [name[:-4] for name in names if name.lower().endswith(".xml") and name[0] != "."]


def _lists(folder: Path) -> dict[str, list[str]]:
    """Read the lists: stems of the annotation files of each part."""
    files = {name: folder / _LISTS / f"{name}.txt" for name in ("train", "val", "trainval", "test")}
    read = {name: _read_list(file) for name, file in files.items() if file.is_file()}
    if "train" in read:
        return {part: read[part] for part in ("train", "val") if part in read}
    val = read.get("val") or read.get("test")
    if "trainval" in read:
        held = set(val or ())
        train = [stem for stem in read["trainval"] if stem not in held]
        if not train:
            raise ValueError(f"{files['trainval']}: all of its images are evaluated on too")
        return {"train": train} | ({"val": val} if val else {})
    if val:
        return {"val": val}
    stems = _stems(folder / _ANNOTATIONS)
    if not stems:
        raise ValueError(f"{folder / _ANNOTATIONS} holds no .xml file")
    return {"train": stems}


def _read_list(file: Path) -> list[str]:
    """Read the stems of a list; the lists of classes have 1 or -1 behind each."""
    stems = []
    for line in read_lines(file, skip_blank=True):
        signed = _WITH_SIGN.fullmatch(line)
        name = signed[1] if signed else line
        stems.append(name[: -len(Path(name).suffix)] if _is_image(name) else name)
    return list(dict.fromkeys(stems))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def _part(stems: Sequence[str], files: Path, folder: Path, report: Report) -> ImageList:
    there = [name for name in sorted(os.listdir(folder)) if _is_image(name)]  # noqa: PTH208
    by_stem = {os.path.splitext(name)[0]: name for name in reversed(there)}  # noqa: PTH122
    known = set(there)
    labels: dict[str, _Annotation] = {}
    missing = []
    for stem in progress(stems, total=len(stems), what="annotations"):
        path, capitals = files / f"{stem}.xml", files / f"{stem}.XML"
        try:
            one = _read_annotation(capitals if capitals.is_file() else path, report)
        except ValueError as error:
            report(str(error))
            continue
        stated = Path(one.filename.replace("\\", "/")).name
        name = by_stem.get(stem) or (stated if stated in known else "")
        if not name:
            missing.append(f"{folder / (stated or f'{stem}.jpg')} ({one.file})")
        elif name in labels:
            report(f"{labels[name].file} and {one.file} are both of {folder / name}: remove one")
        else:
            labels[name] = one
    if not labels:
        first = f"; the first: {missing[0]}" if missing else ""
        raise ValueError(f"no image of {files} is in {folder} ({LISTED_IMAGE_SUFFIXES}{first})")
    return ImageList(folder=folder, names=sorted(labels), labels=labels, missing=missing)


def _read_annotation(file: Path, report: Report) -> _Annotation:
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # also of the encoding
        raise ValueError(f"{file} is not XML that can be read: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"{file} begins with <{shown(root.tag)[1:-1]}>, not with <annotation>")
    objects = []
    for number, one in enumerate(root.iterfind("object"), start=1):
        try:
            objects.append(_object(one))
        except ValueError as error:
            report(f"{file}: object {number} {error}")
    size = root.find("size")
    sides = [_side(file, size, key) for key in ("height", "width")] if size is not None else [0, 0]
    known = (sides[0], sides[1]) if all(sides) else None  # some programs write zeros
    return _Annotation(file, _text(root, "filename"), known, tuple(objects))


def _text(element: ElementTree.Element, tag: str) -> str:
    return " ".join((element.findtext(tag) or "").split())


def _side(file: Path, size: ElementTree.Element, key: str) -> int:
    text = _text(size, key)
    if not text.isdecimal() and text:
        raise ValueError(f"{file}: the {key} of its size is {shown(text)}")
    return int(text or 0)


def _object(element: ElementTree.Element) -> tuple[str, list[float], bool]:
    name = _text(element, "name")
    if not name:
        raise ValueError("has no name")
    box = element.find("bndbox")
    if box is None:
        raise ValueError(f"({name!r}) has no bndbox")
    edges = []
    for key in _EDGES:
        text = _text(box, key)
        try:
            edges.append(float(text))
        except ValueError:
            edges.append(float("nan"))
        if not abs(edges[-1]) < 2**31:
            raise ValueError(f"({name!r}) has {key} {shown(text)}, not a finite number")
    for low, high in (0, 2), (1, 3):
        if edges[high] < edges[low]:
            raise ValueError(
                f"({name!r}) has {_EDGES[low]} {edges[low]:g} and {_EDGES[high]} {edges[high]:g}: "
                "the second must not be smaller"
            )
    difficult = _text(element, "difficult").lower()
    if difficult not in ("", "0", "1", "true", "false", "unspecified"):
        raise ValueError(f"({name!r}) has difficult {shown(difficult)}; it must be 0 or 1")
    return name, edges, difficult in ("1", "true")


def _objects(
    ids: Mapping[str, int], label: _Annotation, size: Size, scored: bool, report: Report
) -> Iterator[dict[str, Any]]:
    if label.size not in (None, size):
        height, width = label.size or size
        turned = " (as it is stored, before its EXIF orientation)" * (label.size == size[::-1])
        report(
            f"{label.file}: its size is {width} x {height} px{turned}; its image has {size[1]} x "
            f"{size[0]} px upright: boxes would be at the wrong place"
        )
        return
    for name, (left, top, right, bottom), difficult in label.objects:
        one = {"category_id": ids[name], "bbox": box_inside(left - 1, top - 1, right, bottom, size)}
        yield one | ({"iscrowd": 1} if scored and difficult else {})
