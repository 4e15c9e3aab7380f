"""Tables of boxes (CSV, TSV): a line for each object, its image relative to the table.

Pixels count from 0, so that a box is `xmax - xmin` wide. RetinaNet's have no header.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from eva_data.detection.datasets import PART_NAMES, EntryError, Report, refuse
from eva_data.detection.foreign import ForeignDataset, ImageLabels, ImageList, Shape, open_shapes
from eva_data.detection.rules import edges_of, format_value
from eva_data.tables import Columns, find_columns, open_text, rows_of_table

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

Row = tuple[str, Shape | None]  # image, and its object; None of an image without objects


def find_tables(path: Path) -> dict[str, Columns]:
    """Find the tables of a dataset: part -> table; {"": table} where there is one for all.

    They are `path` itself; or in a folder `train.csv` and `val.csv`, or the only table.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]
    tables = {table.file.stem.lower(): table for table in map(_columns, files) if table}
    parts = ((part, name) for part, names in PART_NAMES.items() for name in reversed(names))
    tables_of_parts = {part: tables[name] for part, name in parts if name in tables}
    if path.is_dir() and {"train", "val"} & {*tables_of_parts}:
        return tables_of_parts
    if len(tables) > 1:
        several = ", ".join(table.file.name for table in tables.values())
        raise ValueError(f"{path} has several tables of boxes ({several}): name one of them")
    return {"": next(iter(tables.values()))} if tables else {}


def _columns(file: Path) -> Columns | None:
    """Find the columns of a table by its header, or by their order; None if it is of others."""
    columns = find_columns(file, _ROLES)
    if len(columns.places) == len(_ROLES):
        return columns
    with open_text(file) as stream:
        cells = stream.readline().strip().split(",")
    places = {role: number for number, role in enumerate(_ROLES)}
    columns = Columns(file, ",", [""] * len(_ROLES), places)
    return columns if len(cells) == len(_ROLES) and _row(cells, columns) else None


def _row(cells: Sequence[str], columns: Columns) -> Row | None:
    """Read a line; None if it is not right."""
    image, *edges, name = (cells[columns.places[role]].strip() for role in _ROLES)
    if image and all(edge.lower() in _EMPTY for edge in edges):
        return image, None
    values = edges_of(edges)
    return (image, Shape(name, values)) if image and name and values else None


def open_tables(tables: Mapping[str, Columns], *, report: Report = refuse) -> ForeignDataset:
    """Read the tables of `find_tables`. The classes are the names of all objects, sorted."""
    parts = {part or "train": _part(table, report) for part, table in tables.items()}
    first = next(iter(tables.values())).file
    return open_shapes(
        parts,
        format="a table of boxes",
        source=first if len(tables) == 1 else first.parent,
        is_split="" not in tables,
    )


def _part(columns: Columns, report: Report) -> ImageList:
    file, folder = columns.file, columns.file.parent.absolute()
    shapes, missing = defaultdict[str, list[Shape]](list), dict[str, str]()
    for number, cells in rows_of_table(columns):
        row, location = _row(cells, columns) if cells else None, f"{file}, line {number}"
        if row is None:
            problem = (
                f"a line must be {COLUMNS}, with xmin <= xmax and ymin <= ymax in pixels, or an "
                f"image and empty cells; got {format_value(cells)}"
            )
            report(EntryError("labels.line", location, problem))
        elif (folder / row[0]).is_file():
            image, shape = row
            shapes[os.path.relpath(folder / image, folder)] += [shape] if shape else []
        else:
            missing.setdefault(row[0], f"{folder / row[0]} ({location})")
    labels = {image: ImageLabels(str(file), objects) for image, objects in shapes.items()}
    return ImageList(
        folder=folder, names=sorted(labels), labels=labels, missing=[*missing.values()]
    )
