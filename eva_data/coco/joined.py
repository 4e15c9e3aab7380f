"""Several data sets as one: the same classes, ids of their own, names below a common folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.coco.files import CocoFile, check_categories

_SHOWN = 12  # names of classes in a message
Numbering = Mapping[int, tuple[int, str]]  # category id of a set -> id and name of all together


def unite(files: Mapping[Path, Sequence[CocoFile]], *, unlisted: bool) -> dict[Path, Numbering]:
    """Number the classes of all sets as those of the first.

    Args:
        files: Path of each set -> its files, which have the same ids and names, or less of them.
        unlisted: Whether the classes are those of which objects were found, as in Pascal VOC,
            and not of a list: their names are then joined, sorted, and numbered from 1.

    Returns:
        Path of each set -> new id and name of each of its categories.

    Raises:
        ValueError: If sets have other classes, or the same in another order.
    """
    own: dict[Path, Mapping[int, str]] = {}
    for path, (first, *others) in files.items():
        own[path] = first.categories
        for file in others:
            check_categories(file, first.categories, of=str(first.path))
    if unlisted:
        names = sorted({name for categories in own.values() for name in categories.values()})
        ids = {name: (number, name) for number, name in enumerate(names, start=1)}
        return {path: {key: ids[name] for key, name in one.items()} for path, one in own.items()}
    first_path, common = next(iter(own.items()))
    for path, categories in own.items():
        if [*categories.values()] != [*common.values()]:
            raise ValueError(
                f"the sets of --data need the same classes in the same order: {path} has "
                f"{_listed(categories)}; {first_path} has {_listed(common)}"
            )
    return {
        path: dict(zip(categories, common.items(), strict=True)) for path, categories in own.items()
    }


def _listed(categories: Mapping[int, str]) -> str:
    names = list(categories.values())
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"


def join(parts: Sequence[tuple[CocoFile, str, Numbering]]) -> tuple[CocoFile, str]:
    """Join files, whose pictures may have equal names in different folders.

    Args:
        parts: Each file, the folder of its pictures, and its classes from `unite`.

    Returns:
        A file whose names are relative to the common folder, and that folder.

    Raises:
        ValueError: If a picture is in two of the files.
    """
    common = os.path.commonpath([os.path.normpath(folder) for _, folder, _ in parts])
    images: dict[int, dict[str, Any]] = {}
    objects: list[dict[str, Any]] = []
    categories: dict[int, str] = {}
    known: dict[str, Path] = {}
    for file, folder, numbering in parts:
        categories |= dict(numbering.values())
        ids = {}
        for key, entry in file.images.items():
            name = os.path.normpath(os.path.join(folder, entry["file_name"]))  # noqa: PTH118
            if known.setdefault(name, file.path) != file.path:
                raise ValueError(
                    f"{name} is a picture of {known[name]} and of {file.path}: leave one of them "
                    "out, or take it out of one"
                )
            ids[key] = len(images) + 1
            images[ids[key]] = {**entry, "id": ids[key], "file_name": _below(name, common)}
        for one in file.objects:
            changed = {"image_id": ids[one["image_id"]]}
            changed["category_id"] = numbering[one["category_id"]][0]
            objects.append({**one, **changed})
    files = [file for file, _, _ in parts]
    joined = CocoFile(
        path=Path(" and ".join(str(file.path) for file in files)),
        categories=dict(sorted(categories.items())),
        images=images,
        objects=objects,
        flat=sum(file.flat for file in files),
        thin=all(file.thin for file in files),
        lvis=any(file.lvis for file in files),
    )
    return joined, common


def _below(path: str, folder: str) -> str:
    inside = folder.rstrip(os.sep) + os.sep
    return path.removeprefix(inside)
