"""Label maps as files, images of the same names, and the file that names the classes of own data.

ignore = [0, 255]              # label values without a class (default: none)
image_ending = "_leftImg8bit"  # of file names, before the suffix; also map_ending

[[classes]]
name = "road"
label = 7                      # value in the maps (default: the position, from 0)
color = [128, 64, 128]         # default: one of many distinct colours
"""

import colorsys
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.band_files import inspect_bands
from eva_data.classes import ALLOW_EMPTY, list_names
from eva_data.files import ARRAY_SUFFIXES, IMAGE_SUFFIXES, find_files, load_toml
from eva_data.holdout import holdout_mask
from eva_data.images import UnreadableImageError, open_image

IGNORED = 255  # what the loss and the metric leave out
_DEEP = ("I;16", "I;16B", "I;16L")
_MODES = ("1", "L", "P", "I", *_DEEP)  # one integer for each pixel
LabelMap = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32]


class LabelMapError(UnreadableImageError):
    """A label map that cannot be used; the message names it."""


def read_label_map(path: Path) -> LabelMap:
    """Read the label values (H, W) of a file, palette or not; else a `LabelMapError`."""
    try:
        with open_image(path, name="it", decode=True) as stored:
            mode = stored.mode
            if mode in _MODES:
                values = np.asarray(stored)
                if mode == "1":
                    return values.astype(np.uint8)
                return values.astype(np.uint16) if mode in _DEEP else values
    except UnreadableImageError as error:
        raise LabelMapError(f"cannot read {path} as a label map: {error}") from error
    kind = "fractions" if mode == "F" else "colours"
    raise LabelMapError(
        f"{path} holds {kind} (mode {mode}); a label map has one integer for each pixel: "
        f"replace {kind} by numbers first"
    )


class LabelTable:
    """Turns label values of classes, and those to ignore, into class indices."""

    def __init__(self, labels: Sequence[int], ignore: Sequence[int]) -> None:
        self._table = np.full(max(*labels, *ignore) + 2, -1, np.int16)  # the last: beyond all
        self._table[list(ignore)] = IGNORED
        self._table[list(labels)] = np.arange(len(labels))

    def __call__(self, values: LabelMap, path: Path | str) -> NDArray[np.uint8]:
        """Find class indices (H, W) of label values; `IGNORED` where a pixel has no class.

        A value that neither belongs to a class nor is ignored is a `LabelMapError`.
        """
        indices = self._table[np.clip(values, 0, len(self._table) - 1)]
        if indices.min(initial=0) < 0 or values.min(initial=0) < 0:
            unknown = np.unique(values[(indices < 0) | (values < 0)]).tolist()
            raise LabelMapError(
                f"{path} has labels that are neither a class's nor ignored: "
                f"{list_names([*map(str, unknown)], 3)}; name them in the class file, or correct it"
            )
        return indices.astype(np.uint8)


_LARGEST_LABEL = 65535
EXAMPLE = "it is a TOML file with, for each class, [[classes]] and below it a name such as 'road'"
Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class ClassFile:
    """Classes of a dataset in the order of the model, as the top of this module describes them."""

    names: tuple[str, ...]
    labels: tuple[int, ...]
    colors: tuple[Color, ...]
    ignore: tuple[int, ...] = ()
    image_ending: str = ""
    map_ending: str = ""

    @property
    def rows(self) -> list[tuple[str, int, Color]]:
        """Name, label and color of each class, as the template of the file takes them."""
        return [*zip(self.names, self.labels, self.colors, strict=True)]


def read_class_file(path: Path) -> ClassFile:
    """Read the file that is described at the top of this module; an error names the entry."""
    content: Any = load_toml(path)
    entries, ignore = content.get("classes"), content.get("ignore", [])
    endings = {key: content.get(key, "") for key in ("image_ending", "map_ending")}
    is_list = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    with_label = sum("label" in entry for entry in entries) if is_list else 0
    if not is_list or not 2 <= len(entries) <= IGNORED or with_label not in (0, len(entries)):
        raise ValueError(
            f"{path} needs from 2 to {IGNORED} [[classes]], with a label in all or none of them "
            f"(not in {with_label}); {EXAMPLE}"
        )
    _check(
        content,
        str(path),
        classes=(True, ""),
        ignore=(_are_labels(ignore), "a list of labels such as [0, 255]"),
        **{key: (isinstance(ending, str), "text") for key, ending in endings.items()},
    )
    classes = dict[str, tuple[int, Color]]()
    for position, entry in enumerate(entries):
        name, label = entry.get("name"), entry.get("label", position)
        color = entry.get("color", [*distinct_color(position)])
        earlier = [label for label, _ in classes.values()]
        is_new = isinstance(name, str) and bool(name.strip()) and name not in classes
        is_free = _are_labels([label]) and label not in (*earlier, *ignore)
        is_color = _are_labels(color) and len(color) == 3 and max(color) <= 255
        _check(
            entry,
            f"{path}, class {position + 1}",
            name=(is_new, "text such as 'road' that no earlier class has"),
            label=(is_free, f"from 0 to {_LARGEST_LABEL}, of no earlier class and not in ignore"),
            color=(is_color, "[red, green, blue], 0 to 255"),
        )
        classes[name] = label, (color[0], color[1], color[2])
    labels = tuple(label for label, _ in classes.values())
    return ClassFile(
        names=tuple(classes),
        labels=labels,
        colors=tuple(color for _, color in classes.values()),
        ignore=tuple(ignore),
        **endings,
    )


def _check(entry: Mapping[str, Any], where: str, **rules: tuple[bool, str]) -> None:
    """Refuse an unknown key, and the first whose value is not what it must be."""
    for key in (*entry, *rules):
        good, needed = rules.get(key, (False, f"left out: there are {', '.join(rules)}"))
        if not good:
            raise ValueError(f"{where}: {key} = {entry.get(key)!r} must be {needed}")


def _are_labels(values: Any) -> bool:
    labels = isinstance(values, list) and all(type(value) is int for value in values)
    return labels and all(0 <= value <= _LARGEST_LABEL for value in values)


def distinct_color(position: int) -> Color:
    """Choose a colour for the class at a position; neighbours differ clearly."""
    hue = position * 0.61803398875 % 1  # golden ratio: new hues fall into the largest gaps
    value = (0.95, 0.75, 0.55)[position % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, value))
    return red, green, blue


def describe_classes(meta: Mapping[str, Any]) -> tuple[list[str], list[Color], list[int]]:
    """List names, colours, and labels in files of the classes in mmsegmentation's `metainfo`."""
    names = [str(name) for name in meta["classes"]]
    palette = meta.get("palette") or [distinct_color(index) for index in range(len(names))]
    colors = [(int(red), int(green), int(blue)) for red, green, blue in palette]
    first = int(bool(meta.get("reduce_zero_label")))  # label 0 is not a class then
    # of some classes of a known dataset, or in another order
    old_labels = {new: old for old, new in (meta.get("label_map") or {}).items()}
    labels = meta.get("labels") or [first + old_labels.get(new, new) for new in range(len(names))]
    return names, colors, [int(label) for label in labels]


MAPS = (".bmp", ".png", ".tif", ".tiff")  # without loss
_SAMPLE = 32  # pairs that are read before a run


class Pair(NamedTuple):
    """An image and its label map."""

    image: Path
    label_map: Path


def find_pairs(
    images: Path, maps: Path, *, image_ending: str = "", map_ending: str = ""
) -> tuple[list[Pair], list[Path], list[Path]]:
    """Pair the files of two folders, searched through, by their names without ending and suffix.

    Returns:
        The pairs in order of their names, images without a map, and maps without an image.
    """
    files = _by_name(images, IMAGE_SUFFIXES, image_ending)
    files = files or _by_name(images, ARRAY_SUFFIXES, image_ending)
    labels = _by_name(maps, MAPS, map_ending)
    return (
        [Pair(files[name], labels[name]) for name in sorted(files.keys() & labels)],
        [files[name] for name in sorted(files.keys() - labels)],
        [labels[name] for name in sorted(labels.keys() - files)],
    )


def _by_name(folder: Path, suffixes: Collection[str], ending: str) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in find_files(folder, suffixes):
        path = folder / file
        if not path.stem.endswith(ending) or path.stem == ending:
            continue
        name = Path(file).with_name(path.stem.removesuffix(ending)).as_posix()
        if name in files:
            raise ValueError(f"{files[name]} and {path} have the same name apart from the suffix")
        files[name] = path
    return files


def hold_out(pairs: Sequence[Pair], images: Path, share: float) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into those to train on and to evaluate on, see `eva_data.holdout`."""
    names = (pair.image.relative_to(images).with_suffix("").as_posix() for pair in pairs)
    held = holdout_mask(names, share)
    return [*compress(pairs, ~held)], [*compress(pairs, held)]


def check_pairs(images: Path, maps: Path, classes: ClassFile) -> list[Pair]:
    """Pair two folders; an error names the first file without its other."""
    pairs, lonely, unused = find_pairs(
        images, maps, image_ending=classes.image_ending, map_ending=classes.map_ending
    )
    if lonely or not pairs:
        examples = ", ".join(str(names[0]) for names in (lonely, unused) if names)
        raise ValueError(
            f"{len(lonely)} of {len(lonely) + len(pairs)} images in {images} have no label map "
            f"({', '.join(MAPS)}) of the same name in {maps}, such as {examples}; different ends "
            "of the names are stated as image_ending and map_ending in the class file"
        )
    return pairs


def count_values(pairs: Sequence[Pair], labels: Collection[int] | None = None) -> Counter[int]:
    """Count the maps that have each value.

    A sample of the pairs is read, spread evenly, and then more until each of the `labels` was in a
    map; without `labels` all are read.
    """
    if not pairs:
        return Counter()
    sample = sorted({round(i * (len(pairs) - 1) / _SAMPLE) for i in range(_SAMPLE + 1)})
    counts = Counter[int]()
    for number, index in enumerate(dict.fromkeys([*sample, *range(len(pairs))])):
        if number >= len(sample) and labels is not None and counts.keys() >= {*labels}:
            break
        counts.update(np.unique(read_values(pairs[index])).tolist())
    return counts


class Misfit(NamedTuple):
    """How label maps and a class file differ: what to correct, "" for nothing; unseen classes."""

    problem: str
    unseen: list[str]
    ignored: list[int]  # labels that are in the maps


def compare_labels(
    seen: Iterable[int], classes: ClassFile, file: Path, *, may_lack: bool
) -> Misfit:
    """Compare the values of maps with a class file, of which some classes `may_lack` pixels.

    The problem names the lines of the file that mend it; maps of one class alone are one, too.
    """
    names, values = dict(zip(classes.labels, classes.names, strict=True)), sorted({*seen})
    free = [value for value in values if value not in {*names, *classes.ignore}]
    empty = [label for label in names if label not in values]
    ignored, unseen = [v for v in values if v in classes.ignore], [names[label] for label in empty]
    if not free and len(empty) <= (len(names) - 2 if may_lack else 0):
        return Misfit("", unseen, ignored)
    parts = [f"the label maps have the values {_listed(values)}"]
    parts += [f"no class has {_listed(free)}"] if free else []
    parts += [f"no pixel is of {list_names(unseen)} (label {_listed(empty)})"] if empty else []
    spare = free or (ignored if len(names) - len(empty) < 2 else [])  # such as masks of 0 and 255
    if empty and len(spare) >= len(empty):
        changed = dict(zip(empty, spare, strict=False))
        lines = [f"`label = {changed.get(key, key)}` below {names[key]!r}" for key in names]
        parts.append(f"write {list_names(lines, 16)} in {file}")
    elif free:
        parts.append(f"write `ignore = {free}` at the top of {file}, or [[classes]] with a label")
    elif not may_lack:
        parts.append(f"take them out of {file}, or allow them by {ALLOW_EMPTY}")
    return Misfit("; ".join(parts), unseen, ignored)


def _listed(values: Iterable[int]) -> str:
    return list_names([*map(str, values)], 16)


def find_class_file(folders: Collection[tuple[Path, Path]]) -> Path:
    """Find `classes.toml` right above folders of images and maps, or above the first two of them.

    Where there is none, it is where the file belongs. No file at the root is taken.
    """
    pairs = [*folders]
    files = list[Path]()
    for group in (pairs, pairs[:1]):
        every = [folder.absolute() for pair in group for folder in pair]
        top = Path(os.path.commonpath(every))
        near = len(group) == 1 or all(top in folder.parents[:2] for folder in every)
        files += [top / "classes.toml"] if near and top != Path(top.anchor) else []
    if not files:
        raise ValueError(
            f"{pairs[0][0]} and {pairs[0][1]} lie apart: name the classes by --classes"
        )
    return next((file for file in files if file.exists()), files[0])


def find_classes(folders: Collection[tuple[Path, Path]]) -> tuple[Path, ClassFile]:
    """Read `classes.toml` above folders of images and maps; what it should be if it is not there.

    It is then made of the values of the maps, if these are 0 to K, or 0 and 255 of binary masks.

    Raises:
        ValueError: If what the values mean must be said in the file, or no map is of an image.
    """
    file = find_class_file(folders)
    if file.exists():
        return file, read_class_file(file)
    pairs = [pair for two in folders for pair in find_pairs(*two)[0]]
    if not pairs:
        check_pairs(*next(iter(folders)), ClassFile(names=(), labels=(), colors=()))
    labels = sorted(count_values(pairs))
    if labels not in ([*range(len(labels))], [0, IGNORED]) or not 2 <= len(labels) <= IGNORED:
        raise ValueError(
            f"the label maps have the values {_listed(labels)}: which of them are classes, and "
            f"which to ignore, must be said in {file}; {EXAMPLE}, "
            f"and `label = {min(labels, default=0)}`"
        )
    names = [f"class {label}" for label in labels]
    colors = [distinct_color(index) for index in range(len(labels))]
    if len(names) == 2:
        names[0], colors[0] = "background", (64, 64, 64)  # grey, so that the other stands out
    return file, ClassFile(names=tuple(names), labels=tuple(labels), colors=tuple(colors))


def read_pair(pair: Pair, table: LabelTable) -> NDArray[np.uint8]:
    """Read the class indices, (H, W), of a label map; its size and labels must be right."""
    return table(read_values(pair), pair.label_map)


def read_values(pair: Pair) -> LabelMap:
    """Read the label values (H, W) of a pair, whose sizes must be equal."""
    values = read_label_map(pair.label_map)
    size = inspect_bands(pair.image, decode=False).seen_size[::-1]
    require_equal_size(pair, size, values.shape)
    return values


def require_equal_size(pair: Pair, size: tuple[int, ...], size_of_map: tuple[int, ...]) -> None:
    """Refuse a label map of another (height, width) than its image."""
    if size != size_of_map:
        raise LabelMapError(
            f"{pair.image} is {size} (height, width) and its map {pair.label_map} {size_of_map}: "
            "they must be equal"
        )
