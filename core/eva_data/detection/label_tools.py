"""Labels as annotation programs export them: CVAT for images 1.1 (XML), and Label Studio (JSON).

Images lie beside the file or in `images/`. Of a task of Label Studio the first annotation counts
that was not cancelled, else the first prediction.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np

from eva_data.detection.coco import EntryError, ImageList, LabelledImages, Report, box_inside
from eva_data.detection.rules import Size
from eva_data.detection.tiles import encode_mask
from eva_data.files import load_json, open_regular, read_regular

_FILES = ("annotations.xml", "tasks.json")
_SHAPES = "a box, polygon or mask of CVAT, or a rectangle or polygon of Label Studio, not rotated"
_KEYS = (b'"predictions"', b'"annotations"')  # of Label Studio's tasks
Shapes = list[dict[str, Any]]  # name, edges and perhaps segmentation of each object


def find_labels(path: Path) -> Callable[[Report], LabelledImages] | None:
    """Find a file of an annotation program, itself or in its folder; return what opens it."""
    files = [path / name for name in _FILES] if path.is_dir() else [path]
    for file in filter(Path.is_file, files):
        if file.suffix == ".xml":
            tree = _parse_xml(file)
            if tree.tag == "annotations":
                names = [name.text or "" for name in tree.iterfind("meta//label/name")]
                return lambda report: _open("CVAT", file, names, _read_cvat(file, tree, report))
        if file.suffix == ".json":
            with open_regular(file) as stream:
                start = stream.read(2**16)
            if start.lstrip()[:1] == b"[" and any(key in start for key in _KEYS):
                tasks = load_json(file)
                read = functools.partial(_read_label_studio, file, tasks)
                return lambda report: _open("Label Studio", file, _classes(file), read(report))
    return None


def _parse_xml(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_regular(file))
    except ElementTree.ParseError as error:
        raise ValueError(f"{file} is not XML: {error}") from error


def _classes(file: Path) -> list[str]:
    config = file.with_name("label_config.xml")
    tree = _parse_xml(config) if config.is_file() else ()
    return [label.get("value", "") for element in tree for label in element.iter("Label")]


def _open(
    program: str, file: Path, classes: Sequence[str], images: Iterator[tuple[str, Shapes]]
) -> LabelledImages:
    """Look for the images; classes are in the order of the program, or else sorted."""
    labels, missing = dict[str, Shapes](), list[str]()
    for image, shapes in images:
        places = [image, f"images/{image}"]
        name = next((place for place in places if (file.parent / place).is_file()), "")
        if name:
            labels[name] = shapes
        else:
            missing.append(f"{file.parent / places[1]} ({file})")
    names = sorted({shape["name"] for shapes in labels.values() for shape in shapes})
    ordered = dict.fromkeys([*classes, *names])
    part = ImageList(folder=file.parent, names=sorted(labels), labels=labels, missing=missing)
    return LabelledImages(
        format=program,
        source=file,
        classes=[*ordered],
        parts={"train": part},
        read=functools.partial(_objects, {name: n for n, name in enumerate(ordered, start=1)}),
        is_split=False,
    )


def _read_cvat(file: Path, tree: Any, report: Report) -> Iterator[tuple[str, Shapes]]:
    for image in tree.iterfind("image"):
        name, size = image.get("name", ""), (image.get("height"), image.get("width"))
        elements = [element for element in image if element.tag != "tag"]  # of the whole image
        read = functools.partial(_shape_of_cvat, size)
        yield name, _read_shapes(read, elements, f"{file}: {name}", report)


def _read_shapes(
    read: Callable[[Any], dict[str, Any]], entries: Sequence[Any], location: str, report: Report
) -> Shapes:
    shapes = Shapes()
    for number, entry in enumerate(entries, start=1):
        try:
            shapes.append(read(entry))
        except (TypeError, LookupError, ValueError) as error:
            message = f"it must be {_SHAPES} ({type(error).__name__}: {error})"
            report(EntryError("labels.object", f"{location}, object {number}", message))
    return shapes


def _shape(name: str, corners: Sequence[Any], *, outlined: bool) -> dict[str, Any]:
    points = [(float(x), float(y)) for x, y in corners]
    xs, ys = zip(*points, strict=True)
    shape = {"name": name, "edges": (min(xs), min(ys), max(xs), max(ys))}
    return shape | ({"segmentation": [[*sum(points, ())]]} if outlined else {})


def _shape_of_cvat(size: Sequence[Any], element: ElementTree.Element) -> dict[str, Any]:
    values = element.attrib
    if element.tag == "polygon":
        corners = [pair.split(",") for pair in values["points"].split(";")]
        return _shape(values["label"], corners, outlined=True)
    if element.tag == "box" and not float(values.get("rotation", 0)):
        edges = [values[key] for key in ("xtl", "ytl", "xbr", "ybr")]
        return _shape(values["label"], [edges[:2], edges[2:]], outlined=False)
    if element.tag != "mask":
        raise ValueError(element.tag)
    x, y, width, height = (int(values[key]) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in values["rle"].split(",")]  # by rows, zeros first
    mask = np.zeros([int(side) for side in size], np.uint8)
    bits = np.repeat(np.arange(len(runs)) % 2, runs)
    mask[y : y + height, x : x + width] = bits.reshape(height, width)
    shape = _shape(values["label"], [(x, y), (x + width, y + height)], outlined=False)
    return shape | {"segmentation": encode_mask(mask)}


def _read_label_studio(file: Path, tasks: Any, report: Report) -> Iterator[tuple[str, Shapes]]:
    for number, task in enumerate(tasks, start=1):
        try:
            address = next(value for value in task["data"].values() if isinstance(value, str))
            every = [*task.get("annotations", ()), *task.get("predictions", ())]
            results = [entry["result"] for entry in every if not entry.get("was_cancelled")]
            entries = [entry for entry in (results or [[]])[0] if "value" in entry]  # no relations
        except (StopIteration, LookupError, TypeError, AttributeError) as error:
            message = f"it must have data with an image, and results ({error!r})"
            report(EntryError("labels.task", f"{file}: task {number}", message))
            continue
        name = Path(unquote(address.rpartition("?d=")[2])).name
        yield name, _read_shapes(_shape_of_label_studio, entries, f"{file}: task {number}", report)


def _shape_of_label_studio(entry: Mapping[str, Any]) -> dict[str, Any]:
    value, kind = entry["value"], entry["type"]
    if kind not in ("rectanglelabels", "polygonlabels") or value.get("rotation"):
        raise ValueError(kind)
    sides, (name,) = (entry["original_width"], entry["original_height"]), value[kind]
    x, y, width, height = (value.get(key, 0) for key in ("x", "y", "width", "height"))
    percent = value.get("points") or [(x, y), (x + width, y + height)]
    corners = [(x * sides[0] / 100, y * sides[1] / 100) for x, y in percent]
    return _shape(name, corners, outlined=kind == "polygonlabels")


def _objects(
    ids: Mapping[str, int], shapes: Shapes, size: Size, scored: bool, report: Report
) -> Iterator[dict[str, Any]]:
    del scored, report
    for shape in shapes:
        left, top, right, bottom = shape["edges"]
        box = box_inside(left, top, right, bottom, size)
        mask = {key: value for key, value in shape.items() if key == "segmentation"}
        yield {"category_id": ids[shape["name"]], "bbox": box, **mask}
