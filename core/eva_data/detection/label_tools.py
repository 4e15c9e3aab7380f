"""Labels as annotation programs export them: CVAT for images 1.1 (XML), and Label Studio (JSON).

Images lie beside the file or in `images/`. Of a task of Label Studio the first annotation counts
that was not cancelled, else the first prediction; a task without either was not labelled, and is
left out.
"""

import functools
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np

from eva_data.detection.datasets import EntryError, Report
from eva_data.detection.foreign import ForeignDataset, ImageLabels, ImageList, Shape, open_shapes
from eva_data.detection.rules import Size
from eva_data.detection.tiles import encode_mask
from eva_data.files import (
    IMAGE_SUFFIXES,
    explain_format,
    load_json,
    open_regular,
    read_regular,
    stays_below,
)
from eva_data.images import max_pixels

_FILES = ("annotations.xml", "tasks.json")
_SHAPES = "a box, polygon or mask of CVAT, or a rectangle or polygon of Label Studio, not rotated"
_KEYS = (b'"predictions"', b'"annotations"')  # of Label Studio's tasks
_ANSWERS = ("choices", "textarea", "rating", "number", "taxonomy", "datetime")  # about an image
SizedShape = tuple[Shape, Size | None]  # with the size of its image, if that is stated


def find_labels(path: Path) -> Callable[[Report], ForeignDataset] | None:
    """Find a file of an annotation program, itself or in its folder; return what opens it."""
    files = [path / name for name in _FILES] if path.is_dir() else [path]
    for file in filter(Path.is_file, files):
        if file.suffix == ".xml":
            tree = _parse_xml(file)
            if tree.tag == "annotations":
                names = [name.text or "" for name in tree.iterfind("meta//label/name")]
                read = functools.partial(_read_cvat, file, tree)
                return functools.partial(_open, "CVAT", file, names, read)
        if file.suffix == ".json":
            with open_regular(file) as stream:
                start = stream.read(2**16)
            is_list = start.removeprefix(BOM_UTF8).lstrip()[:1] == b"["
            if is_list and any(key in start for key in _KEYS):
                read = functools.partial(_read_label_studio, file, load_json(file))
                return functools.partial(_open, "Label Studio", file, _classes(file), read)
    return None


def _parse_xml(file: Path) -> ElementTree.Element:
    with explain_format(file, "XML"):
        return ElementTree.fromstring(read_regular(file))


def _classes(file: Path) -> list[str]:
    config = file.with_name("label_config.xml")
    tree = _parse_xml(config) if config.is_file() else ()
    return [label.get("value", "") for element in tree for label in element.iter("Label")]


def _open(
    program: str,
    file: Path,
    classes: Sequence[str],
    read: Callable[[Report], Iterator[tuple[str, ImageLabels]]],
    report: Report,
) -> ForeignDataset:
    """Look for the images; classes are in the order of the program, or else sorted."""
    labels, missing = dict[str, ImageLabels](), list[str]()
    for image, image_labels in read(report):
        location = image_labels.location
        paths = [image, f"images/{image}"]
        name = next((path for path in paths if (file.parent / path).is_file()), "")
        if not stays_below(image):
            message = f"its image {image} must lie beside the file or in images/"
            report(EntryError("labels.file", location, message))
        elif not name:
            missing.append(f"{file.parent / paths[1]} ({file})")
        elif name in labels:
            message = (
                f"{labels[name].location} has labels of {name} too: one image must be listed once"
            )
            report(EntryError("labels.file", location, message))
        else:
            labels[name] = image_labels
    if not labels and not missing:
        raise ValueError(f"{file} lists no image (nor does CVAT for video: export CVAT for images)")
    part = ImageList(folder=file.parent, names=sorted(labels), labels=labels, missing=missing)
    return open_shapes(
        {"train": part}, format=program, source=file, is_split=False, classes=classes
    )


def _read_cvat(file: Path, tree: Any, report: Report) -> Iterator[tuple[str, ImageLabels]]:
    for image in tree.iterfind("image"):
        name, size = image.get("name", ""), (image.get("height"), image.get("width"))
        elements = [element for element in image if element.tag != "tag"]  # of the whole image
        read = functools.partial(_shape_of_cvat, size)
        yield name, _read_shapes(read, elements, f"{file}: {name}", report)


def _read_shapes(
    read: Callable[[Any], SizedShape], entries: Sequence[Any], location: str, report: Report
) -> ImageLabels:
    shapes, sizes = list[Shape](), set[Size]()
    for number, entry in enumerate(entries, start=1):
        try:
            shape, size = read(entry)
            shapes.append(shape)
            sizes |= {size} if size else set()
        except (TypeError, LookupError, ValueError) as error:
            message = f"it must be {_SHAPES} ({type(error).__name__}: {error})"
            report(EntryError("labels.object", f"{location}, object {number}", message))
    return ImageLabels(location, shapes, sizes)


def _shape(name: str, corners: Sequence[Any], size: Sequence[Any], *, outlined: bool) -> SizedShape:
    points = [(float(x), float(y)) for x, y in corners]
    xs, ys = zip(*points, strict=True)
    mask = [[*sum(points, ())]] if outlined else None
    shape = Shape(name, (min(xs), min(ys), max(xs), max(ys)), mask)
    return shape, None if None in size else (int(size[0]), int(size[1]))


def _shape_of_cvat(size: Sequence[Any], element: ElementTree.Element) -> SizedShape:
    values = element.attrib
    if element.tag == "polygon":
        corners = [pair.split(",") for pair in values["points"].split(";")]
        return _shape(values["label"], corners, size, outlined=True)
    if element.tag == "box" and not float(values.get("rotation", 0)):
        edges = [values[key] for key in ("xtl", "ytl", "xbr", "ybr")]
        return _shape(values["label"], [edges[:2], edges[2:]], size, outlined=False)
    if element.tag != "mask":
        raise ValueError(element.tag)
    x, y, width, height = (int(values[key]) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in values["rle"].split(",")]  # by rows, zeros first
    rows, columns = map(int, size)
    fits = min(x, y, *runs) >= 0 and x + width <= columns and y + height <= rows
    if not fits or sum(runs) != width * height or rows * columns > max_pixels():
        raise ValueError(f"mask of {width} x {height} px at {x}, {y}, {sum(runs)} px in all")
    mask = np.zeros((rows, columns), bool)
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[y : y + height, x : x + width] = bits.reshape(height, width)
    box = [(x, y), (x + width, y + height)]
    shape, stated = _shape(values["label"], box, size, outlined=False)
    return shape._replace(mask=encode_mask(mask)), stated


def _read_label_studio(file: Path, tasks: Any, report: Report) -> Iterator[tuple[str, ImageLabels]]:
    for number, task in enumerate(tasks, start=1):
        location = f"{file}: task {number}"
        try:
            addresses = [value for value in task["data"].values() if isinstance(value, str)]
            paths = [Path(unquote(a.rpartition("?d=")[2].partition("?")[0])) for a in addresses]
            name = max(paths, key=lambda path: path.suffix.lower() in IMAGE_SUFFIXES).name
            every = [*task.get("annotations", ()), *task.get("predictions", ())]
            entries = [entry for entry in every if isinstance(entry, dict)]  # others are ids
            results = [entry["result"] for entry in entries if not entry.get("was_cancelled")]
            if not results:
                continue
            first = results[0]  # with relations, which have no value
            objects = [o for o in first if "value" in o and o.get("type") not in _ANSWERS]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            message = f"it must have data with an image, and results ({error!r})"
            report(EntryError("labels.task", location, message))
            continue
        yield name, _read_shapes(_shape_of_label_studio, objects, location, report)


def _shape_of_label_studio(entry: Mapping[str, Any]) -> SizedShape:
    value, kind = entry["value"], entry["type"]
    turned = value.get("rotation") or entry.get("image_rotation")
    if kind not in ("rectanglelabels", "polygonlabels") or turned:
        raise ValueError(f"{kind}, rotated by {turned}" if turned else kind)
    (name,), sides = value[kind], (entry["original_width"], entry["original_height"])
    x, y, width, height = (value.get(key, 0) for key in ("x", "y", "width", "height"))
    percent = value.get("points") or [(x, y), (x + width, y + height)]
    corners = [(x * sides[0] / 100, y * sides[1] / 100) for x, y in percent]
    return _shape(name, corners, sides[::-1], outlined=kind == "polygonlabels")
