"""Folders of Pascal VOC: `Annotations/*.xml`, `JPEGImages/`, and lists in `ImageSets/Main/`.

Coordinates of VOC count pixels from 1 and name the last pixel of the box, so in COCO's way
`x = xmin - 1` and `width = xmax - x`, as detectron2 reads them. Objects that are `difficult` are
trained on like others, as detectron2 does; in scoring they are crowds, which count neither way.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eva_data.files import LISTED_IMAGE_SUFFIXES, read_lines
from eva_data.object_data.content import (
    LabelledPictures,
    Part,
    Report,
    Size,
    box_inside,
    is_picture,
    refuse,
)
from eva_data.object_data.voc_files import VocFile, VocObject, read_voc_file
from eva_data.progress import progress

ANNOTATIONS, PICTURES_BELOW, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
_WITH_SIGN = re.compile(r"(.*\S)\s+-?[01]")  # a line of the list of a class
# Pictures and files side by side, as Roboflow exports them.
_SIDE_BY_SIDE = {"train": ("train",), "val": ("valid", "val")}


def find_voc(folder: Path) -> Path | None:
    """Find a folder of VOC in a folder: itself, or the only year of a `VOCdevkit`.

    Args:
        folder: The folder.

    Returns:
        The folder that holds the annotations; None if there is none.

    Raises:
        ValueError: If there are several years.
    """
    if (folder / ANNOTATIONS).is_dir() or _side_by_side(folder):
        return folder
    below = [folder, *([folder / "VOCdevkit"] if (folder / "VOCdevkit").is_dir() else [])]
    years = [path.parent for one in below for path in sorted(one.glob(f"*/{ANNOTATIONS}"))]
    if len(years) > 1:
        names = ", ".join(str(path) for path in years)
        raise ValueError(
            f"{folder} holds several sets of VOC: name one of {names}, or several, each with --data"
        )
    return years[0] if years else None


def _side_by_side(folder: Path) -> dict[str, Path]:
    found = {}
    for part, names in _SIDE_BY_SIDE.items():
        for name in names:
            if part not in found and (folder / name).is_dir() and _stems(folder / name):
                found[part] = folder / name
    return found


class VocPictures(LabelledPictures):
    """The pictures of a folder of Pascal VOC.

    Args:
        folder: Folder with `Annotations`, or with `train` and `valid`.
        report: Receives what is wrong with an object, which is left out if it returns.

    Raises:
        ValueError: If a list, an annotation file or a picture is missing or is not right.
    """

    def __init__(self, folder: Path, *, report: Report = refuse) -> None:
        self._files: dict[tuple[Path, str], tuple[Path, VocFile]] = {}
        folder = folder.absolute()
        if (folder / ANNOTATIONS).is_dir():
            pictures = folder / PICTURES_BELOW
            if not pictures.is_dir():
                raise ValueError(f"{folder} has {ANNOTATIONS}, and no folder {PICTURES_BELOW}")
            listed = _listed(folder)
            parts = {
                part: self._part(stems, folder / ANNOTATIONS, pictures, report)
                for part, stems in listed.items()
            }
        else:
            parts = {
                part: self._part(_stems(place), place, place, report)
                for part, place in _side_by_side(folder).items()
            }
        super().__init__("Pascal VOC", folder, parts)
        names = {one.name for _, file in self._files.values() for one in file.objects}
        if not names:
            raise ValueError(f"{folder}: none of its {len(self._files)} files has an object")
        self._names = sorted(names)
        self._ids = {name: number for number, name in enumerate(self._names, start=1)}

    @property
    def classes(self) -> Sequence[str]:
        """See `LabelledPictures`; the names of all objects, sorted, as VOC has no list of them."""
        return self._names

    def _part(self, stems: Sequence[str], files: Path, folder: Path, report: Report) -> Part:
        listing = sorted(os.listdir(folder))  # noqa: PTH208
        there = {name: name for name in listing if is_picture(name)}
        by_stem = {os.path.splitext(name)[0]: name for name in reversed(there)}  # noqa: PTH122
        names, absent = [], []
        for stem in progress(stems, total=len(stems), what="annotations"):
            path, capitals = files / f"{stem}.xml", files / f"{stem}.XML"
            if not path.is_file() and capitals.is_file():
                path = capitals
            try:
                file = read_voc_file(path, report=report)
            except ValueError as error:
                report(str(error))
                continue
            stated = Path(file.filename.replace("\\", "/")).name
            name = by_stem.get(stem) or there.get(stated) or ""
            if not name:
                wanted = folder / (stated or f"{stem}.jpg")
                absent.append(f"{wanted} ({path})")
                continue
            earlier = self._files.get((folder, name), (path,))[0]
            if earlier != path:
                report(f"{earlier} and {path} are both of {folder / name}: remove one of them")
                continue
            names.append(name)
            self._files[folder, name] = path, file
        if not names:
            first = f"; the first: {absent[0]}" if absent else ""
            raise ValueError(
                f"no picture of {files} is in {folder} ({LISTED_IMAGE_SUFFIXES}{first})"
            )
        return Part(folder=folder, names=sorted(set(names)), absent=absent)

    def objects(
        self, part: Part, name: str, size: Size, *, scored: bool, report: Report
    ) -> Iterator[dict[str, Any]]:
        """See `LabelledPictures`."""
        path, file = self._files[part.folder, name]
        height, width = size
        if file.size not in (None, size):
            stated = f"{file.size[1]} x {file.size[0]}" if file.size else ""
            turned = (
                ", as it is stored and not turned by its EXIF data"
                if file.size == (width, height)
                else ""
            )
            report(
                f"{path}: its size is {stated} px{turned}; {part.folder / name} has {width} x "
                f"{height} px upright: boxes would be at the wrong place"
            )
            return
        for one in file.objects:
            yield {"category_id": self._ids[one.name], "bbox": _box(one, size)} | (
                {"iscrowd": 1} if scored and one.difficult else {}
            )


def _box(one: VocObject, size: Size) -> list[float]:
    left, top, right, bottom = one.box
    return box_inside(left - 1, top - 1, right, bottom, size)


def _listed(folder: Path) -> dict[str, list[str]]:
    """Read the lists: stems of the annotation files of each part."""
    lists = {
        name: folder / LISTS / f"{name}.txt"
        for name in ("train", "val", "trainval", "test")
        if (folder / LISTS / f"{name}.txt").is_file()
    }
    read = {name: _read_list(path) for name, path in lists.items()}
    if "train" in read:
        return {part: read[part] for part in ("train", "val") if part in read}
    if "trainval" in read:
        val = read.get("val") or read.get("test")
        held = set(val or ())
        parts = {"train": [stem for stem in read["trainval"] if stem not in held]}
        if not parts["train"]:
            raise ValueError(
                f"all pictures of {lists['trainval']} are to be evaluated on too: write train.txt"
            )
        return parts | ({"val": val} if val else {})
    if val := read.get("val") or read.get("test"):
        return {"val": val}
    stems = _stems(folder / ANNOTATIONS)
    if not stems:
        raise ValueError(f"{folder / ANNOTATIONS} holds no .xml file")
    return {"train": stems}


def _stems(folder: Path) -> list[str]:
    names = sorted(os.listdir(folder))  # noqa: PTH208
    return [name[:-4] for name in names if name.lower().endswith(".xml") and name[0] != "."]


def _read_list(file: Path) -> list[str]:
    """Read the stems of a list; the lists of classes have 1 or -1 behind each."""
    stems = []
    for line in read_lines(file, skip_blank=True):
        signed = _WITH_SIGN.fullmatch(line)
        name = signed[1] if signed else line
        stem = name[: -len(Path(name).suffix)] if is_picture(name) else name
        stems.append(stem)
    return list(dict.fromkeys(stems))
