"""Classes of a data set, and the small file that names them.

    ignore = [0, 255]              # label values without a class (default: [255])
    image_ending = "_leftImg8bit"  # of file names, before the suffix; pairs agree in what is left
    map_ending = "_labels"

    [[classes]]
    name = "road"
    label = 7                      # value in the maps (default: the position, from 0)
    color = [128, 64, 128]         # red, green, blue (default: one of many distinct colours)

This module needs neither torch nor mmsegmentation.
"""

import colorsys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_segmentation.data.label_maps import IGNORED

_LARGEST_LABEL = 65535
EXAMPLE = "it is a TOML file with, for each class, [[classes]] and below it a name such as 'road'"
Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ClassFile:
    """Classes of a data set.

    Attributes:
        names: Names in the order of the model.
        labels: Value of each class in the label maps.
        colors: RGB colour of each class.
        ignore: Values in the label maps without a class.
        image_ending: End of the names of images, before the suffix.
        map_ending: End of the names of label maps, before the suffix.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    colors: tuple[Color, ...]
    ignore: tuple[int, ...] = (IGNORED,)
    image_ending: str = ""
    map_ending: str = ""


def read_class_file(path: Path) -> ClassFile:
    """Read and check the file.

    Args:
        path: TOML file as described at the top of this module.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is wrong; the message names the entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no class file {path}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    _demand_known(content, ("ignore", "image_ending", "map_ending", "classes"), str(path))
    entries = content.get("classes")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} has no entries [[classes]] with a name each; {EXAMPLE}")
    if not 2 <= len(entries) <= IGNORED:
        raise ValueError(f"{path} has {len(entries)} [[classes]]; from 2 to {IGNORED} are possible")
    ignore = content.get("ignore", [IGNORED])
    if not isinstance(ignore, list) or not all(_is_label(value) for value in ignore):
        raise ValueError(f"{path}: ignore = {ignore!r} must be a list of labels such as [0, 255]")
    for key in ("image_ending", "map_ending"):
        if not isinstance(content.get(key, ""), str):
            raise ValueError(f"{path}: {key} = {content[key]!r} must be text such as '_labels'")
    names, labels, colors = _read_classes(entries, path)
    for name, label in zip(names, labels, strict=True):
        if label in ignore and "ignore" in content:
            raise ValueError(f"{path}: label {label} of {name!r} is also in ignore = {ignore}")
    return ClassFile(
        names=names,
        labels=labels,
        colors=colors,
        ignore=tuple(value for value in ignore if value not in labels),
        image_ending=content.get("image_ending", ""),
        map_ending=content.get("map_ending", ""),
    )


def _read_classes(
    entries: Sequence[dict[str, Any]], path: Path
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[Color, ...]]:
    names: list[str] = []
    labels: list[int] = []
    colors: list[Color] = []
    with_label = sum("label" in entry for entry in entries)
    if with_label not in (0, len(entries)):
        raise ValueError(
            f"{path}: {with_label} of {len(entries)} classes have a label: all or none"
        )
    for position, entry in enumerate(entries):
        where = f"{path}, class {position + 1}"
        _demand_known(entry, ("name", "label", "color"), where)
        name, label = entry.get("name"), entry.get("label", position)
        color = entry.get("color", distinct_color(position))
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{where}: name = {name!r} must be text such as 'road'")
        if not _is_label(label):
            raise ValueError(f"{where}: label = {label!r} must be from 0 to {_LARGEST_LABEL}")
        if name in names or label in labels:
            value = f"name {name!r}" if name in names else f"label {label}"
            raise ValueError(f"{where}: an earlier class has the {value} too")
        parts = list(color) if isinstance(color, list | tuple) else []
        if len(parts) != 3 or not all(_is_label(part) and part <= 255 for part in parts):
            raise ValueError(f"{where}: color = {color!r} must be [red, green, blue], 0 to 255")
        names.append(name)
        labels.append(label)
        colors.append((parts[0], parts[1], parts[2]))
    return tuple(names), tuple(labels), tuple(colors)


def _demand_known(entry: dict[str, Any], known: Sequence[str], where: str) -> None:
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; there are {', '.join(known)}")


def _is_label(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_LABEL


def distinct_color(position: int) -> Color:
    """Choose a colour for the class at a position; neighbours differ clearly."""
    hue = position * 0.61803398875 % 1  # golden ratio: new hues fall into the largest gaps
    value = (0.95, 0.75, 0.55)[position % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, value))
    return red, green, blue


def described(meta: Mapping[str, Any]) -> tuple[list[str], list[Color], list[int]]:
    """List a data set's classes: their names, colours, and labels in files.

    Args:
        meta: `metainfo` of a data set of mmsegmentation; palette and labels are optional.
    """
    names = [str(name) for name in meta["classes"]]
    palette = meta.get("palette") or [distinct_color(index) for index in range(len(names))]
    colors = [(int(red), int(green), int(blue)) for red, green, blue in palette]
    first = int(bool(meta.get("reduce_zero_label")))  # label 0 is not a class then
    labels = meta.get("labels") or range(first, first + len(names))
    return names, colors, [int(label) for label in labels]
