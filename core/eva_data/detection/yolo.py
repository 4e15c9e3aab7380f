"""YOLO datasets (ultralytics, Roboflow): `data.yaml`, images, and a text file for each.

The labels of `.../images/a.jpg` are in `.../labels/a.txt`; without a folder `images` they lie
beside the image. An image without a label file has no objects. A line of a label file is
`class x_center y_center width height`, a box, or `class x1 y1 x2 y2 x3 y3 ...`, an outline, in
fractions of the upright image. The rules are those of ultralytics' documentation.
"""

import functools
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from eva_data.detection.coco import ImageList, LabelledImages, Report, box_inside
from eva_data.detection.rules import Size, shown
from eva_data.files import (
    IMAGE_SUFFIXES,
    LISTED_IMAGE_SUFFIXES,
    find_files,
    home_expanded,
    read_lines,
    require_regular_file,
)

YAML = (".yaml", ".yml")
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_DATASETS = "datasets"  # where ultralytics looks, here or beside the repository, by default
_TOLERANCE = 0.01  # by which a value may leave 0 to 1


def find_yaml(folder: Path) -> Path | None:
    """Find the `data.yaml` of a folder, or its only YAML file.

    Raises:
        ValueError: If there are several.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in YAML)
    found = [path for path in found if path.name.lower() in ("data.yaml", "data.yml")] or found
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} has several YAML files ({names}): name one of them")
    return found[0] if found else None


def open_yolo(file: Path) -> LabelledImages:
    """Open the dataset that a `data.yaml` describes; its labels are read later.

    Args:
        file: The file.

    Raises:
        ValueError: If it or its lists of images are wrong, or no image has labels.
    """
    settings = _read_yaml(file)
    if "kpt_shape" in settings:
        raise ValueError(f"{file} has kpt_shape: its labels are of keypoints, not of objects")
    classes = _class_names(file, settings)
    named = {
        part: next((settings[key] for key in keys if settings.get(key)), None)
        for part, keys in _KEYS.items()
    }
    if not named["train"] and not named["val"]:
        raise ValueError(f"{file} has neither train nor val, which name folders of images")
    places = _places(file, settings)
    copy = _first_copy((named["train"], named["val"]), places)
    if named["val"] or not all(_find(name, copy) for name in _listed(named["test"])):
        named["test"] = None  # it stands in for val, and may be left out of a copy of a dataset
    parts = {
        part: _part(file, part, _listed(value), copy, places)
        for part, value in named.items()
        if value
    }
    if not any(part.labels for part in parts.values()):
        first = next(iter(parts.values()))
        looked = _label_path(str(first.folder / first.names[0]))
        raise ValueError(f"{file}: none of its images has a label file (looked for {looked})")
    return LabelledImages(
        format="YOLO",
        source=file,
        classes=classes,
        parts=parts,
        read=functools.partial(read_label_file, len(classes)),
    )


def _read_yaml(file: Path) -> dict[str, Any]:
    """Read YAML with every value as its text: `names: [yes, 1.0]` are "yes" and "1.0"."""
    try:
        require_regular_file(file)
        content = yaml.load(file.read_text(encoding="utf-8-sig"), yaml.BaseLoader)
    except OSError as error:
        raise ValueError(str(error)) from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not YAML: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must have keys and values, such as names and train")
    return content


def _class_names(file: Path, settings: dict[str, Any]) -> list[str]:
    names = settings.get("names")
    if isinstance(names, dict):
        by_key = {key.strip(): name for key, name in names.items()}
        keys = [str(number) for number in range(len(names))]
        if set(keys) != set(by_key):
            raise ValueError(
                f"{file}: names has the keys {shown(', '.join(names))}; they must be 0 to "
                f"{len(names) - 1}"
            )
        names = [by_key[key] for key in keys]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file} needs names: a list of the names of the classes")
    texts = [name.strip() if isinstance(name, str) else "" for name in names]
    for number, name in enumerate(texts):
        if not name or texts.index(name) != number:
            problem = f"{name!r}, as class {texts.index(name)} has" if name else "not a text"
            raise ValueError(f"{file}: the name of class {number} is {problem}")
    count = settings.get("nc")
    if count is not None and str(count).strip() != str(len(texts)):
        raise ValueError(f"{file} has nc: {shown(count)} and {len(texts)} names: correct one")
    return texts


def _places(file: Path, settings: dict[str, Any]) -> list[Path]:
    """List the folders that train and val may be relative to, the first choice first."""
    above, path = file.parent.absolute(), settings.get("path")
    if not path:
        return [above]
    if not isinstance(path, str):
        raise ValueError(f"{file}: path is {shown(path)}; it must be a folder")
    named, here = home_expanded(path), Path.cwd()
    places = [above / named, here / named]
    places += [one / _DATASETS / named for one in (here, here.parent)]
    return list(dict.fromkeys([*places, above]))  # the last for a dataset that was moved


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _first_copy(values: Sequence[Any], places: Sequence[Path]) -> Sequence[Path]:
    """Keep the first place that has a part: two copies of a dataset may be split differently."""
    names = [one for value in values for one in _listed(value) if isinstance(one, str)]
    names = [one for one in names if not home_expanded(one.strip()).is_absolute()]
    for place in places:
        if any(_find(name, [place]) for name in names):
            return [place]
    return places


def _candidates(name: str, places: Sequence[Path]) -> list[Path]:
    name = name.strip()
    wanted = [home_expanded(name)]
    if name.startswith("../"):  # Roboflow means the folder of the file itself
        wanted.append(Path(name[3:]))
    return [place / one for place in places for one in wanted]


def _find(name: Any, places: Sequence[Path]) -> Path | None:
    looked = _candidates(name, places) if isinstance(name, str) else []
    return next((Path(os.path.normpath(path)) for path in looked if path.exists()), None)


def _part(
    file: Path, part: str, values: list[Any], copy: Sequence[Path], places: Sequence[Path]
) -> ImageList:
    """List the images that `train`, `val` or `test` names: folders, and lists in text files."""
    paths: list[str] = []
    missing: list[str] = []
    folders: list[str] = []
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{file}: {part} is {shown(value)}; it must name a folder or a list")
        place = _find(value, copy)
        if place is None:
            looked = dict.fromkeys(os.path.normpath(path) for path in _candidates(value, copy))
            raise ValueError(
                f"{file}: {part} is {value.strip()!r}, and there is no {' or '.join(looked)}"
            )
        if place.is_dir():
            found = [f"{place}/{name}" for name in find_files(place, IMAGE_SUFFIXES)]
            if not found:
                raise ValueError(f"{file}: {part} is {place}, which holds no image ({_IMAGES})")
            paths += found
            folders.append(str(place))
        else:
            _read_list(place, places, paths, missing)
    if not paths:
        raise ValueError(f"{file}: no image of {part} is there; the first: {missing[0]}")
    paths = sorted(set(paths))
    # Names are relative to all folders, so that the name of an image, which decides whether it is
    # held out, does not depend on the others.
    above = os.path.commonpath([*folders, *map(os.path.dirname, paths)])
    names = [path[len(above.rstrip(os.sep)) + 1 :] for path in paths]
    return ImageList(
        folder=Path(above), names=names, labels=_label_files(above, names), missing=missing
    )


_IMAGES = LISTED_IMAGE_SUFFIXES


def _read_list(file: Path, places: Sequence[Path], paths: list[str], missing: list[str]) -> None:
    """Add the images of a text file that names one in each line."""
    if file.suffix.lower() != ".txt":
        raise ValueError(f"{file} is neither a folder of images nor a list of them (.txt)")
    try:
        lines = read_lines(file, skip_blank=True)
    except OSError as error:
        raise ValueError(str(error)) from error
    bases = [str(place) for place in (file.parent.absolute(), *places, Path.cwd())]
    for number, line in enumerate(lines, start=1):
        if os.path.splitext(line)[1].lower() not in IMAGE_SUFFIXES:  # noqa: PTH122
            raise ValueError(
                f"{file}, line {number}: {shown(line)} is not the name of an image ({_IMAGES})"
            )
        found = (os.path.normpath(os.path.join(base, line)) for base in bases)  # noqa: PTH118
        path = next(filter(os.path.isfile, found), None)
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
    wanted: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in names:
        folder, label = os.path.split(_label_path(f"{above}{os.sep}{name}"))
        wanted[folder].append((label, name))
    found: dict[str, Path] = {}
    for folder, labels in wanted.items():
        there = os.listdir(folder) if os.path.isdir(folder) else []  # noqa: PTH112, PTH208
        by_name = {os.path.splitext(one)[0] + one[-4:].lower(): one for one in there}  # noqa: PTH122
        found |= {name: Path(folder, by_name[label]) for label, name in labels if label in by_name}
    return found


def read_label_file(
    classes: int, file: Path, size: Size, scored: bool, report: Report
) -> Iterator[dict[str, Any]]:
    """Read the objects of one label file.

    Args:
        classes: Number of classes.
        file: The file.
        size: Height and width of the upright image.
        scored: Without effect.
        report: Takes the error of a line, which is left out if it returns.

    Yields:
        `category_id` (class + 1), `bbox` and, of an outline, `segmentation`.
    """
    del scored
    try:
        require_regular_file(file)
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        report(str(error))
        return
    except ValueError as error:
        report(f"{file} is not text in UTF-8 ({error})")
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            try:
                yield _object(words, size, classes)
            except ValueError as error:
                report(f"{file}, line {number}: {error}")


def _object(words: list[str], size: Size, classes: int) -> dict[str, Any]:
    key, *values = map(_number, words)
    if key != int(key) or not 0 <= key < classes:
        raise ValueError(f"the class is {key:g}; it must be one of data.yaml, 0 to {classes - 1}")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(
            f"{len(values)} numbers follow the class; a box has 4 (x_center y_center width height),"
            f" an outline has x and y of at least 3 corners: {shown(' '.join(words))}"
        )
    for value in values:
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
            raise ValueError(
                f"{value:g} is outside of 0 to 1: values are fractions of the image's width and "
                "height, and not pixels"
            )
    height, width = size
    one = {"category_id": int(key) + 1}
    if len(values) == 4:
        x, y, w, h = values
        edges = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
        return one | {"bbox": box_inside(*edges, size)}
    xs = [round(min(max(value, 0.0), 1.0) * width, 3) for value in values[::2]]
    ys = [round(min(max(value, 0.0), 1.0) * height, 3) for value in values[1::2]]
    outline = [value for corner in zip(xs, ys, strict=True) for value in corner]
    box = box_inside(min(xs), min(ys), max(xs), max(ys), size)
    return one | {"bbox": box, "segmentation": [outline]}


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in word:
        raise ValueError(f"{shown(word)} is not a finite number")
    return value
