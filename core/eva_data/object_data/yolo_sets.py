"""A data set of YOLO (ultralytics, Roboflow): `data.yaml`, pictures, and a text file for each.

The labels of `.../images/a.jpg` are in `.../labels/a.txt`; without a folder `images` they lie
beside the picture. A picture without a label file has no objects. The rules are those of
ultralytics' documentation.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from eva_data.coco.rules import shown
from eva_data.files import (
    IMAGE_SUFFIXES,
    LISTED_IMAGE_SUFFIXES,
    find_files,
    home_expanded,
    read_lines,
)
from eva_data.object_data.content import (
    LabelledPictures,
    Part,
    Report,
    Size,
    is_picture,
    part_of,
)
from eva_data.object_data.yaml_files import read_yaml
from eva_data.object_data.yolo_labels import read_label_file

_KEYS = {"train": ("train",), "val": ("val", "valid", "validation")}
YAML = (".yaml", ".yml")
_DATASETS = "datasets"  # where ultralytics looks, here or beside the repository, by default
_SHOWN = 3  # places in a message


def find_yaml(folder: Path) -> Path | None:
    """Find the description of a data set in its folder.

    Args:
        folder: The folder.

    Returns:
        `data.yaml`, or the only file of that kind; None if there is none.

    Raises:
        ValueError: If there are several.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in YAML)
    found = [path for path in found if path.name.lower() in ("data.yaml", "data.yml")] or found
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} has several descriptions ({names}): name one of these files")
    return found[0] if found else None


class YoloPictures(LabelledPictures):
    """The data set that a `data.yaml` describes.

    Args:
        file: The file.

    Raises:
        ValueError: If it or its lists of pictures are not right, or no picture has labels.
    """

    def __init__(self, file: Path) -> None:
        settings = read_yaml(file)
        if "kpt_shape" in settings:
            raise ValueError(f"{file} has kpt_shape: its labels are of keypoints, not of objects")
        self._names = _class_names(file, settings)
        places = _places(file, settings)
        named = {
            part: next((settings[key] for key in keys if settings.get(key)), None)
            for part, keys in _KEYS.items()
        }
        copies = _copies(named.values(), places)
        parts = {
            part: _part(file, part, value, copies, places)
            for part, value in named.items()
            if value is not None
        }
        if parts and "val" not in parts and _is_there(settings.get("test"), copies):
            parts["test"] = _part(file, "test", settings["test"], copies, places)
        if "train" not in parts and "val" not in parts:
            raise ValueError(f"{file} has neither train nor val, which name folders of pictures")
        super().__init__("YOLO", file, parts)
        self._labels: dict[tuple[Path, str], str] = {}
        for listed in parts.values():
            self._labels.update(_label_files(listed))
        if not self._labels:
            first = next(iter(parts.values()))
            raise ValueError(
                f"{file}: none of its pictures has a file of labels (looked for "
                f"{_label_path(str(first.folder / first.names[0]))} and the like)"
            )

    @property
    def classes(self) -> Sequence[str]:
        """See `LabelledPictures`."""
        return self._names

    def objects(
        self, part: Part, name: str, size: Size, *, scored: bool, report: Report
    ) -> Iterator[dict[str, Any]]:
        """See `LabelledPictures`."""
        del scored
        file = self._labels.get((part.folder, name))
        if file is not None:
            yield from read_label_file(Path(file), size, classes=len(self._names), report=report)


def _class_names(file: Path, settings: dict[str, Any]) -> list[str]:
    names = settings.get("names")
    if isinstance(names, dict):
        keys = [key.strip() for key in names]
        wanted = [str(number) for number in range(len(keys))]
        if sorted(keys) != sorted(wanted):
            raise ValueError(
                f"{file}: names has the keys {shown(', '.join(keys))}; they must be 0 to "
                f"{len(keys) - 1}"
            )
        by_key = {key.strip(): name for key, name in names.items()}
        names = [by_key[key] for key in wanted]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file} needs names: a list of the names of the classes")
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        name = name.strip() if isinstance(name, str) else ""
        if not name:
            raise ValueError(f"{file}: the name of class {number} is not a text")
        if name in found:
            raise ValueError(f"{file}: classes {found[name]} and {number} have the name {name!r}")
        found[name] = number
    count = settings.get("nc")
    if count is not None and str(count).strip() != str(len(names)):
        raise ValueError(f"{file} has nc: {shown(count)} and {len(found)} names: correct one")
    return list(found)


def _places(file: Path, settings: dict[str, Any]) -> list[Path]:
    """List the folders that train and val may be relative to, the first choice first."""
    above = file.parent.absolute()
    path = settings.get("path")
    if not path:
        return [above]
    if not isinstance(path, str):
        raise ValueError(f"{file}: path is {shown(path)}; it must be a folder")
    named, here = home_expanded(path), Path.cwd()
    places = [
        above / named,
        here / named,
        *(one / _DATASETS / named for one in (here, here.parent)),
    ]
    return list(dict.fromkeys([*places, above]))  # the last for a set that was moved


def _copies(values: Iterable[Any], places: Sequence[Path]) -> Sequence[Path]:
    """Keep the first place that has a part: two copies of a set may be divided in other ways."""
    lists = (value if isinstance(value, list) else [value] for value in values)
    names = [one for value in lists for one in value if isinstance(one, str)]
    names = [one for one in names if not home_expanded(one.strip()).is_absolute()]
    for place in places:
        if any(path.exists() for name in names for path in _candidates(name, [place])):
            return [place]
    return places


def _part(
    file: Path, part: str, value: Any, copies: Sequence[Path], places: Sequence[Path]
) -> Part:
    values = value if isinstance(value, list) else [value]
    paths: list[str] = []
    absent: list[str] = []
    folders: list[str] = []
    for one in values:
        if not isinstance(one, str):
            raise ValueError(f"{file}: {part} is {shown(one)}; it must name a folder or a list")
        place = _find(file, part, one, copies)
        if place.is_dir():
            found = [f"{place}/{name}" for name in find_files(place, IMAGE_SUFFIXES)]
            if not found:
                raise ValueError(
                    f"{file}: {part} is {place}, which holds no picture ({LISTED_IMAGE_SUFFIXES})"
                )
            paths += found
            folders.append(str(place))
        else:
            _read_list(place, places, paths, absent)
    if not paths:
        raise ValueError(f"{file}: no picture of {part} is there; the first: {absent[0]}")
    return part_of(paths, folders=folders, absent=absent)


def _find(file: Path, part: str, name: str, places: Sequence[Path]) -> Path:
    looked = _candidates(name, places)
    for path in looked:
        if path.exists():
            return Path(os.path.normpath(path))
    shown = list(dict.fromkeys(os.path.normpath(path) for path in looked))
    more = f" (nor in {len(shown) - _SHOWN} other places)" if len(shown) > _SHOWN else ""
    raise ValueError(
        f"{file}: {part} is {name.strip()!r}, and there is no {' or '.join(shown[:_SHOWN])}{more}"
    )


def _candidates(name: str, places: Sequence[Path]) -> list[Path]:
    name = name.strip()
    wanted = [home_expanded(name)]
    if name.startswith("../"):  # Roboflow means the folder of the file itself
        wanted.append(Path(name[3:]))
    return [place / one for place in places for one in wanted]


def _is_there(value: Any, places: Sequence[Path]) -> bool:
    """Return whether what a part names is there; tests may be left out of a copy of a set."""
    values = value if isinstance(value, list) else [value] if value else []
    return bool(values) and all(
        isinstance(one, str) and any(path.exists() for path in _candidates(one, places))
        for one in values
    )


def _read_list(file: Path, places: Sequence[Path], paths: list[str], absent: list[str]) -> None:
    """Add the pictures of a text file that names one in each line."""
    if file.suffix.lower() != ".txt":
        raise ValueError(f"{file} is neither a folder of pictures nor a list of them (.txt)")
    try:
        lines = read_lines(file, skip_blank=True)
    except OSError as error:
        raise ValueError(str(error)) from error
    bases = [str(place) for place in (file.parent.absolute(), *places, Path.cwd())]
    for number, line in enumerate(lines, start=1):
        if not is_picture(line):
            raise ValueError(
                f"{file}, line {number}: {shown(line)} is not the name of a picture "
                f"({LISTED_IMAGE_SUFFIXES})"
            )
        found = (os.path.normpath(os.path.join(base, line)) for base in bases)  # noqa: PTH118
        path = next(filter(os.path.isfile, found), None)
        if path is None:
            absent.append(f"{os.path.join(bases[0], line)} ({file}, line {number})")  # noqa: PTH118
        else:
            paths.append(path)


def _label_path(picture: str) -> str:
    """Return where the labels of a picture are, for ultralytics too."""
    head, images, tail = picture.rpartition(f"{os.sep}images{os.sep}")
    path = f"{head}{os.sep}labels{os.sep}{tail}" if images else picture
    return os.path.splitext(path)[0] + ".txt"  # noqa: PTH122


def _label_files(part: Part) -> dict[tuple[Path, str], str]:
    """Find the label file of each picture that has one; folders are listed once."""
    wanted: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in part.names:
        folder, label = os.path.split(_label_path(f"{part.folder}{os.sep}{name}"))
        wanted[folder].append((label, name))
    found: dict[tuple[Path, str], str] = {}
    for folder, labels in wanted.items():
        try:
            there = os.listdir(folder)  # noqa: PTH208
        except OSError:
            continue
        by_name = {_small_suffix(name): name for name in there}
        for label, name in labels:
            if label in by_name:
                found[part.folder, name] = f"{folder}{os.sep}{by_name[label]}"
    return found


def _small_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return stem + suffix.lower()
