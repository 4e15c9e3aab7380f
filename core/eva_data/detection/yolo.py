"""YOLO datasets by the rules of ultralytics: `data.yaml`, images, and a text file for each.

Labels of `.../images/a.jpg` are in `.../labels/a.txt`, else beside the image: boxes as `class
x_center y_center width height`, outlines as `class x1 y1 x2 y2 ...`, in fractions.
"""

import contextlib
import functools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from eva_data.classes import describe_alike
from eva_data.detection.datasets import PART_NAMES, EntryError, Report
from eva_data.detection.foreign import ForeignDataset, ImageList, box_inside
from eva_data.detection.rules import Size, format_value
from eva_data.files import (
    IMAGE_SUFFIXES,
    LISTED_IMAGE_SUFFIXES,
    expand_home,
    explain_format,
    find_files,
    list_files,
    read_lines,
    read_regular,
)

YAML = (".yaml", ".yml")
_DATASETS = "datasets"  # where ultralytics looks, here or beside the repository, by default
_NO_LABELS = re.compile(
    r"\.|readme|(predefined_)?classes\.|notes\.|(train|val|test)\.", re.IGNORECASE
)
_TOLERANCE = 0.01  # by which a value may leave 0 to 1


def find_yaml(folder: Path) -> Path | None:
    """Find the `data.yaml` of a folder, or its only YAML file that names classes and images."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in YAML)
    usual = [path for path in files if path.name.lower() in ("data.yaml", "data.yml")]
    files = usual or [path for path in files if _names_images(path)]
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise ValueError(f"{folder} has several YAML files ({names}): name one of them")
    return files[0] if files else None


def _names_images(file: Path) -> bool:
    with contextlib.suppress(ValueError, OSError):
        keys = _read_yaml(file).keys()
        return "names" in keys and not keys.isdisjoint((*PART_NAMES["train"], *PART_NAMES["val"]))
    return False


def open_yolo(file: Path) -> ForeignDataset:
    """Open the dataset that a `data.yaml` describes; its labels are read later."""
    settings = _read_yaml(file)
    folders_of_parts: dict[str, list[Any]] = {}
    for part, keys in PART_NAMES.items():
        value: Any = next((settings[key] for key in keys if settings.get(key)), [])
        folders_of_parts[part] = value if isinstance(value, list) else [value]
    if "kpt_shape" in settings or not (folders_of_parts["train"] or folders_of_parts["val"]):
        raise ValueError(
            f"{file} must name images of objects, as train or val, and not of keypoints (kpt_shape)"
        )
    classes = _class_names(file, settings)
    root = _root(file, settings, folders_of_parts["train"] + folders_of_parts["val"])
    notes = describe_alike(classes, file)
    stated, above = expand_home(str(settings.get("path") or "")), file.parent.absolute()
    if root == above and os.path.normpath(above) != os.path.normpath(above / stated):
        notes.append(f"{file}: path: {stated} has neither train nor val: both are read in {root}")
    if folders_of_parts["val"] or not all(_find(name, root) for name in folders_of_parts["test"]):
        del folders_of_parts["test"]  # it stands in for val; a copy of a dataset may lack it
    parts = {
        part: _part(file, part, values, root) for part, values in folders_of_parts.items() if values
    }
    for name, images in parts.items():
        folders = [_find(value, root) for value in folders_of_parts[name]]
        if all(folder is not None and folder.is_dir() for folder in folders):  # and no list of some
            notes += _describe_unread(images)
    if not any(part.labels for part in parts.values()):
        first = next(iter(parts.values()))
        looked = _label_path(str(first.folder / first.names[0]))
        raise ValueError(f"{file}: none of its images has a label file (looked for {looked})")
    return ForeignDataset(
        format="YOLO",
        source=file,
        classes=classes,
        parts=parts,
        read=functools.partial(read_label_file, len(classes)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    """Read YAML with every value as its text: `names: [yes, 1.0]` are "yes" and "1.0"."""
    decoded = read_regular(file)
    with explain_format(file, "YAML", yaml.YAMLError):
        # libyaml, where PyYAML has it: Python's parser takes 20 s for a megabyte
        content = yaml.load(decoded, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    return content if isinstance(content, dict) else {}


def _class_names(file: Path, settings: Mapping[str, Any]) -> list[str]:
    names_setting = settings.get("names")
    names = list(names_setting) if isinstance(names_setting, list) else []
    if isinstance(names_setting, dict):
        by_key = {key.strip(): name for key, name in names_setting.items()}
        names = [by_key.get(str(number)) for number in range(len(names_setting))]
    texts = [name.strip() if isinstance(name, str) else "" for name in names]
    count = str(settings.get("nc", len(texts))).strip()
    if not texts or not all(texts) or len({*texts}) < len(texts) or count != str(len(texts)):
        raise ValueError(
            f"{file}: names must be the different names of the classes, a list or one for each of "
            "0, 1, 2, ..., as many as nc if that is given; got "
            f"{format_value(names_setting, 200)} and nc {count}"
        )
    return texts


def _root(file: Path, settings: Mapping[str, Any], names: Sequence[Any]) -> Path:
    """Find the folder that train and val are relative to: the first that has one of them."""
    above, path = file.parent.absolute(), settings.get("path")
    if not path:
        return above
    stated, here = expand_home(str(path)), Path.cwd()
    places = [above / stated, here / stated]
    places += [base / _DATASETS / stated for base in (here, here.parent)]
    places.append(above)  # of a dataset that was moved
    relative = [name for name in names if not expand_home(str(name).strip()).is_absolute()]
    return next((root for root in places if any(_find(name, root) for name in relative)), places[0])


def _find(name: Any, root: Path) -> Path | None:
    name = str(name).strip()
    places = [root / expand_home(name)]
    if name.startswith("../"):  # Roboflow means the folder of the file itself
        places.append(root / name[3:])
    return next((Path(os.path.normpath(path)) for path in places if path.exists()), None)


def _part(file: Path, part: str, values: Sequence[Any], root: Path) -> ImageList:
    """List the images that `train`, `val` or `test` names: folders, and lists in text files."""
    paths: list[str] = []
    missing: list[str] = []
    folders: list[str] = []
    for value in values:
        target = _find(value, root)
        if target is None or not (target.is_dir() or target.suffix.lower() == ".txt"):
            raise ValueError(
                f"{file}: {part} is {format_value(value)}; it must name folders of images, or "
                f"lists of images (.txt), below {root}, where train or val was looked for"
            )
        if target.is_dir():
            paths += [f"{target}/{name}" for name in find_files(target, IMAGE_SUFFIXES)]
            folders.append(str(target))
        else:
            _read_list(target, root, paths, missing)
    if not paths:
        looked = ", ".join(missing[:1] or folders)
        raise ValueError(f"{file}: {part} has no image ({LISTED_IMAGE_SUFFIXES}) in {looked}")
    paths = sorted(set(paths))
    # Names are relative to all folders, so that the name of an image, which decides whether it is
    # held out, does not depend on the others.
    above = os.path.commonpath([*folders, *map(os.path.dirname, paths)])
    names = [path[len(above.rstrip(os.sep)) + 1 :] for path in paths]
    return ImageList(
        folder=Path(above), names=names, labels=_label_files(above, names), missing=missing
    )


def _read_list(file: Path, root: Path, paths: list[str], missing: list[str]) -> None:
    """Add the images of a text file that names one in each line."""
    bases = [str(base) for base in (file.parent.absolute(), root, Path.cwd())]
    for number, line in enumerate(read_lines(file, skip_blank=True), start=1):
        candidates = (os.path.normpath(os.path.join(base, line)) for base in bases)  # noqa: PTH118
        is_image = os.path.splitext(line)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
        path = next(filter(os.path.isfile, candidates), None) if is_image else None
        if path is None:
            missing.append(f"{os.path.join(bases[0], line)} ({file}, line {number})")  # noqa: PTH118
        else:
            paths.append(path)


def _label_path(image: str) -> str:
    """Return where the labels of an image are, for ultralytics too."""
    head, images, tail = image.rpartition(f"{os.sep}images{os.sep}")
    path = f"{head}{os.sep}labels{os.sep}{tail}" if images else image
    return os.path.splitext(path)[0] + ".txt"  # noqa: PTH122


def _label_files(above: str, names: Sequence[str]) -> dict[str, Path]:
    """Find the label file of each image that has one; folders are listed once."""
    list_once = functools.cache(_list_by_lower_suffix)
    label_files: dict[str, Path] = {}
    for name in names:
        folder, label = os.path.split(_label_path(f"{above}{os.sep}{name}"))
        if file := list_once(folder).get(label):
            label_files[name] = Path(folder, file)
    return label_files


def _describe_unread(images: ImageList) -> list[str]:
    """Say, in a line or none, that label files beside those of the images are of no image."""
    labels = {str(file.with_suffix("")) for file in images.labels.values()}
    unread = sorted(
        f"{folder}{os.sep}{name}"
        for folder in {str(file.parent) for file in images.labels.values()}
        for name in list_files(folder)
        if name.lower().endswith(".txt") and not _NO_LABELS.match(name)
        if f"{folder}{os.sep}{name[:-4]}" not in labels
    )
    if not unread:
        return []
    have = "label file has" if len(unread) == 1 else "label files have"
    return [f"{len(unread)} {have} no image ({LISTED_IMAGE_SUFFIXES}), such as {unread[0]}"]


def _list_by_lower_suffix(folder: str) -> dict[str, str]:
    return {os.path.splitext(name)[0] + name[-4:].lower(): name for name in list_files(folder)}  # noqa: PTH122


def read_label_file(
    classes: int, file: Path, size: Size, scored: bool, report: Report
) -> Iterator[dict[str, Any]]:
    """Yield the objects of one label file, see `ForeignDataset.read`; ids are class + 1."""
    del scored
    try:
        lines = read_regular(file).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        report(EntryError("labels.file", str(file), f"it cannot be read ({error})"))
        return
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        values = _numbers(words, classes)
        if values:
            yield _object(values, size)
        else:
            message = (
                f"a line must be a class of data.yaml, 0 to {classes - 1}, and of a box x_center "
                "y_center width height, of an outline x and y of at least 3 corners, as fractions, "
                f"0 to 1, of the image's width and height, not pixels; got {format_value(line)}"
            )
            report(EntryError("labels.line", f"{file}, line {number}", message))


def _numbers(words: Sequence[str], classes: int) -> list[float]:
    """Read a line; nothing if it is not right."""
    try:
        key, *values = (float(word) if "_" not in word else math.nan for word in words)
    except ValueError:
        return []
    is_class = key.is_integer() and 0 <= key < classes
    box_or_outline = len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)
    inside = all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in values)
    return [key, *values] if is_class and box_or_outline and inside else []


def _object(numbers: Sequence[float], size: Size) -> dict[str, Any]:
    key, *values = numbers
    height, width = size
    entry = {"category_id": int(key) + 1}
    if len(values) == 4:
        x, y, w, h = values
        edges = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
        return entry | {"bbox": box_inside(edges, size)}
    xs = [round(min(max(value, 0.0), 1.0) * width, 3) for value in values[::2]]
    ys = [round(min(max(value, 0.0), 1.0) * height, 3) for value in values[1::2]]
    outline = [value for corner in zip(xs, ys, strict=True) for value in corner]
    box = box_inside((min(xs), min(ys), max(xs), max(ys)), size)
    return entry | {"bbox": box, "segmentation": [outline]}
