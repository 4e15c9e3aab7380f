"""Tables of boxes (CSV, TSV): a line for each object, its image relative to the table.

image_path,xmin,ymin,xmax,ymax,label      a header, in any order and with other columns
a.jpg,10,20,60,80,cat                     RetinaNet's, without a header
b.jpg,,,,,                                an image without objects

Pixels count from 0, so that a box is `xmax - xmin` wide.
"""

import functools
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.detection.coco import (
    EntryError,
    ImageList,
    LabelledImages,
    Report,
    box_inside,
    refuse,
)
from eva_data.detection.rules import Size, shown
from eva_data.tables import LONGEST, Columns, find_columns, open_text, rows_of_table

SUFFIXES = (".csv", ".tsv")
_ROLES = {
    "image": (
        *("image_path", "filename", "file_name", "image", "path", "file", "filepath", "img_path"),
        *("image_name", "img"),
    ),
    "left": ("xmin", "x1", "x_min", "left"),
    "top": ("ymin", "y1", "y_min", "top"),
    "right": ("xmax", "x2", "x_max", "right"),
    "bottom": ("ymax", "y2", "y_max", "bottom"),
    "class": ("label", "class", "class_name", "name", "category", "category_name"),
}
COLUMNS = "image_path,xmin,ymin,xmax,ymax,label"  # for messages
_EMPTY = ("", "nan")
_PARTS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

Row = tuple[str, str, list[float]]  # image, class, edges; no edges of an image without objects


def find_tables(path: Path) -> dict[str, Path]:
    """Find the tables of a dataset: part -> file; {"": file} where there is one for all.

    They are `path` itself; or in a folder `train.csv` and `val.csv`, a table in each of `train/`
    and `valid/` (Roboflow), or the only table. Nothing is found if there is none.
    """
    if not path.is_dir():
        fits = path.suffix.lower() in SUFFIXES and path.is_file() and _columns(path)
        return {"": path} if fits else {}
    found: dict[str, Path] = {}
    for part, names in _PARTS.items():
        for name in names:
            for table in [*_tables(path, f"{name}.*"), *_tables(path / name, "*")][:1]:
                found.setdefault(part, table)
    if "train" in found or "val" in found:
        return found
    tables = _tables(path, "*")
    if len(tables) > 1:
        several = ", ".join(table.name for table in tables)
        raise ValueError(f"{path} has several tables of boxes ({several}): name one of them")
    return {"": tables[0]} if tables else {}


def _tables(folder: Path, pattern: str) -> list[Path]:
    files = sorted(one for one in folder.glob(pattern) if one.suffix.lower() in SUFFIXES)
    return [one for one in files if one.is_file() and _columns(one)]


def _columns(file: Path) -> Columns | None:
    """Find the columns of a table by its header, or by their order; None if it is of others."""
    columns = find_columns(file, _ROLES)
    if len(columns.places) == len(_ROLES):
        return columns
    with open_text(file) as stream:
        cells = stream.readline(LONGEST).strip().split(",")
    bare = Columns(file, ",", [], dict(zip(_ROLES, range(len(_ROLES)), strict=True)))
    fits = len(cells) == len(_ROLES) and _row(cells, bare) is not None
    return bare._replace(names=[""] * len(_ROLES)) if fits else None


def _row(cells: Sequence[str], columns: Columns) -> Row | None:
    """Read a line; None if it is not right."""
    image, *edges, name = (cells[columns.places[role]].strip() for role in _ROLES)
    if all(edge.lower() in _EMPTY for edge in edges):
        return (image, "", []) if image else None
    try:
        values = [float(edge) for edge in edges]
    except ValueError:
        return None
    left, top, right, bottom = values
    finite = all(math.isfinite(value) and abs(value) < 2**31 for value in values)
    return (
        (image, name, values)
        if image and name and finite and left <= right and top <= bottom
        else None
    )


def open_tables(tables: Mapping[str, Path], *, report: Report = refuse) -> LabelledImages:
    """Read the tables of `find_tables`. The classes are the names of all objects, sorted."""
    parts = {part or "train": _part(file, report) for part, file in tables.items()}
    classes = {name for part in parts.values() for rows in part.labels.values() for name, _ in rows}
    first = next(iter(tables.values()))
    if not classes:
        raise ValueError(f"{first} has no box")
    return LabelledImages(
        format="a table of boxes",
        source=first if len(tables) == 1 else first.parent,
        classes=sorted(classes),
        parts=parts,
        read=functools.partial(_objects, {name: n for n, name in enumerate(sorted(classes), 1)}),
        is_split="" not in tables,
    )


def _part(file: Path, report: Report) -> ImageList:
    columns = _columns(file)
    assert columns is not None
    rows, lines = defaultdict[str, list[tuple[str, list[float]]]](list), dict[str, int]()
    for number, cells in rows_of_table(columns, header=any(columns.names)):
        row = None if cells is None else _row(cells, columns)
        if row is None:
            text = (
                f"a line must be {COLUMNS}, with xmin <= xmax and ymin <= ymax in pixels, or an "
                f"image and empty cells; got {shown(cells)}"
            )
            report(EntryError("labels.line", f"{file}, line {number}", text))
            continue
        image, name, edges = row
        lines.setdefault(image, number)
        rows[image] += [(name, edges)] if edges else []
    found = {image: _find(file.parent.absolute(), image) for image in rows}
    missing = [f"{file.parent / one} ({file}, line {lines[one]})" for one in rows if not found[one]]
    labels = {name: rows[image] for image, name in found.items() if name}
    return ImageList(
        folder=file.parent.absolute(), names=sorted(labels), labels=labels, missing=missing
    )


def _find(folder: Path, image: str) -> str:
    """Return the path of an image relative to the folder of its table; empty if it is not there."""
    places = (folder / image, folder / "images" / image, folder / Path(image).name)
    path = next((one for one in places if one.is_file()), None)
    return os.path.relpath(path, folder) if path else ""


def _objects(
    ids: Mapping[str, int],
    rows: Sequence[tuple[str, list[float]]],
    size: Size,
    scored: bool,
    report: Report,
) -> Iterator[dict[str, Any]]:
    del scored, report
    for name, (left, top, right, bottom) in rows:
        yield {"category_id": ids[name], "bbox": box_inside(left, top, right, bottom, size)}
