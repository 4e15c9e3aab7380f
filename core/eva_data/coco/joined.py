"""Several data sets as one: the same classes, new ids, names that say where pictures are."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_data.coco.files import CocoFile, check_categories

_SHOWN = 12  # names of classes in a message
Numbering = Mapping[int, tuple[int, str]]  # category id of a set -> id and name of all together


def unite(
    files: Mapping[Path, Sequence[CocoFile]], *, unlisted: Mapping[Path, Sequence[str]]
) -> dict[Path, Numbering]:
    """Number the classes of all sets as those of the first.

    Args:
        files: Path of each set -> its files, which have the same ids and names, or less of them.
        unlisted: Path of each set, also of those without files -> its classes, where these are
            those of which objects were found, as in Pascal VOC, and not of a list: their names are
            then joined, sorted, and numbered from 1. Empty where there are lists.

    Returns:
        Path of each set -> new id and name of each of its categories.

    Raises:
        ValueError: If sets have other classes, or the same in another order.
    """
    if unlisted:
        names = sorted({name for classes in unlisted.values() for name in classes})
        ids = {name: (number, name) for number, name in enumerate(names, start=1)}
        return {
            path: {key: ids[name] for key, name in enumerate(classes, start=1)}
            for path, classes in unlisted.items()
        }
    own: dict[Path, Mapping[int, str]] = {}
    for path, (first, *others) in files.items():
        own[path] = first.categories
        for file in others:
            check_categories(file, first.categories, of=str(first.path))
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


def join(
    parts: Sequence[tuple[CocoFile, str, Numbering]],
    *,
    categories: Mapping[int, str],
    known: dict[str, Path],
) -> tuple[CocoFile, str]:
    """Join files, whose pictures may have equal names in different folders.

    Args:
        parts: Each file, the folder of its pictures, and its classes from `unite`.
        categories: Name of each id of all sets together.
        known: Pictures that are in a file already -> that file; those of these are added.

    Returns:
        A file, and the folder of the first one's pictures: names of pictures are relative to it,
        or absolute where they are elsewhere.

    Raises:
        ValueError: If a picture is in two of the files.
    """
    place = os.path.normpath(parts[0][1])
    images: dict[int, dict[str, Any]] = {}
    objects: list[dict[str, Any]] = []
    for file, folder, numbering in parts:
        ids = {}
        for key, entry in file.images.items():
            name = os.path.normpath(os.path.join(folder, entry["file_name"]))  # noqa: PTH118
            if known.setdefault(name, file.path) != file.path:
                raise ValueError(
                    f"{name} is a picture of {known[name]} and of {file.path}: leave one of them "
                    "out, or take it out of one"
                )
            ids[key] = len(images) + 1
            images[ids[key]] = {**entry, "id": ids[key], "file_name": _below(name, place)}
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
    return joined, place


def _below(path: str, folder: str) -> str:
    inside = folder.rstrip(os.sep) + os.sep
    return path.removeprefix(inside)
