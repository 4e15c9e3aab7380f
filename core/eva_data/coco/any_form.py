"""Own data in any form as checked files in COCO format, also where a share is held out.

What is not a COCO file on disk is one in memory first, and is written into the folder of the run
that uses it, completely and before anything of it is read there.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva_data.coco.files import CocoFile, check_images, checked, forget, read_coco, remember
from eva_data.coco.joined import join, unite
from eva_data.files import make_folder, write_text
from eva_data.holdout import held_out, stem
from eva_data.object_data.as_coco import as_coco
from eva_data.object_data.coco_exports import Places
from eva_data.object_data.content import LabelledPictures, Part
from eva_data.object_data.forms import open_data
from eva_data.object_data.voc_sets import VocPictures

FOLDER, EVALUATED = "data", "evaluated"  # of a run; name of the file of an evaluation alone
_held: list[CocoFile] = []


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The data that a command line names.

    Attributes:
        data: Paths in any form; several are joined.
        files: Part ("train", "val") -> file in COCO format and folder of pictures, without `data`.
        share: Share of the training data that is held out for evaluation; None if it is named.
        boxes_only: Leave masks alone.
        parts: Parts that are needed.
    """

    data: tuple[Path, ...] = ()
    files: tuple[tuple[str, Path, Path], ...] = ()
    share: float | None = None
    boxes_only: bool = False
    parts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The data of a command line.

    Attributes:
        files: Part -> file; the path of one that is not on disk is where its data come from.
        folders: Part -> folder of its pictures.
        made: Parts whose files are not on disk.
        notes: Sentences for the log.
    """

    files: dict[str, CocoFile]
    folders: dict[str, str]
    made: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


_found: dict[Wanted, Found] = {}


def find(wanted: Wanted) -> Found:
    """Read and check data; the same question is answered once in a process.

    Args:
        wanted: What is asked for.

    Raises:
        ValueError: If something is missing or not right.
    """
    if wanted not in _found:
        _found[wanted] = _find(wanted)
    return _found[wanted]


def _find(wanted: Wanted) -> Found:
    if len(wanted.data) < 2:
        return _find_one(open_data(wanted.data[0]) if wanted.data else None, wanted)
    sources = {path: open_data(path) for path in wanted.data}
    parts = {path: _places(source, wanted)[0].keys() for path, source in sources.items()}
    if wanted.share is None:
        _check_parts(set().union(*parts.values()), " and ".join(map(str, sources)), wanted)
    found = {}
    for path, source in sources.items():
        there = wanted.parts
        if wanted.share is None:
            there = tuple(part for part in wanted.parts if part in parts[path])
        if there:
            found[path] = _find_one(source, dataclasses.replace(wanted, data=(path,), parts=there))
    files = {path: [*one.files.values()] for path, one in found.items()}
    voc = {path: one.classes for path, one in sources.items() if isinstance(one, VocPictures)}
    numbering = unite(files, unlisted=voc if len(voc) == len(sources) else {})
    categories = dict(pair for one in numbering.values() for pair in one.values())
    joined, known = {}, dict[str, Path]()
    for part in wanted.parts:
        joined[part] = join(
            [
                (one.files[part], one.folders[part], numbering[path])
                for path, one in found.items()
                if part in one.files
            ],
            categories=categories,
            known=known if wanted.share is not None else {},  # a share of each set is held out
        )
    for file in (file for one in found.values() for file in one.files.values()):
        forget(file.path)
    notes = [note for one in found.values() for note in one.notes]
    return Found(
        files={part: file for part, (file, _) in joined.items()},
        folders={part: folder for part, (_, folder) in joined.items()},
        made=frozenset(joined),
        notes=[*notes, f"{len(sources)} sets are joined: {', '.join(map(str, sources))}"],
    )


def _places(source: Any, wanted: Wanted) -> tuple[dict[str, Any], list[str]]:
    """Return the parts of a set; without data for evaluation, those for tests stand for them."""
    places = dict(source.parts if isinstance(source, LabelledPictures) else source)
    test = places.pop("test", None)
    if test is None or "val" in places or wanted.share is not None:
        return places, []
    name = ", ".join(map(str, wanted.data))
    return places | {"val": test}, [f"{name} has no val: its test pictures are evaluated on"]


def _find_one(source: LabelledPictures | Places | None, wanted: Wanted) -> Found:
    if isinstance(source, LabelledPictures):
        return _of_labels(source, wanted)
    places = {part: (file, folder) for part, file, folder in wanted.files}
    notes: list[str] = []
    if source is not None:
        places, notes = _places(source, wanted)
    name = str(wanted.data[0] if wanted.data else wanted.files[0][1])
    _check_parts(places, name, wanted)
    read = ("train",) if wanted.share is not None else wanted.parts
    files, folders = {}, {}
    for part in read:
        path, folder = (one.absolute() for one in places[part])
        files[part] = read_coco(path, boxes_only=wanted.boxes_only)
        folders[part] = str(folder)
        check_images(files[part], folder)
    if wanted.share is None:
        return Found(files=files, folders=folders, notes=notes)
    (file,), (folder_name,) = files.values(), folders.values()
    images = list(file.images.values())
    names = (_relative(one["file_name"], folder_name) for one in images)
    chosen = held_out(map(stem, names), wanted.share)
    sides = {"train": ~chosen, "val": chosen}
    kept = {
        part: {one["id"] for one, is_in in zip(images, sides[part], strict=True) if is_in}
        for part in wanted.parts
    }
    divided = {part: _only(file, ids) for part, ids in kept.items()}
    note = _split_note(wanted.share, len(images), int(chosen.sum()))
    return Found(
        files=divided,
        folders=dict.fromkeys(kept, folder_name),
        made=frozenset(kept),
        notes=[note, *_untrained(divided)],
    )


def _check_parts(places: Any, name: str, wanted: Wanted) -> None:
    if wanted.share is not None:
        if "val" in places:
            raise ValueError(
                f"{name} has data for evaluation already: leave out --val-share {wanted.share:g}"
            )
        if "train" not in places:
            raise ValueError(f"{name} has no training data of which a share could be held out")
        return
    for part in wanted.parts:
        if part not in places:
            what = {"train": "training data", "val": "data for evaluation"}[part]
            hint = "; --val-share 0.1 holds out a share of the training data" * (part == "val")
            raise ValueError(f"{name} has no {what} ({part}){hint}")


def _split_note(share: float, total: int, chosen: int) -> str:
    return (
        f"--val-share {share:g}: {chosen} of {total} pictures are held out for evaluation, "
        f"{total - chosen} are trained on; their names decide"
    )


def _untrained(files: Mapping[str, CocoFile]) -> Iterator[str]:
    """Name the classes all of whose objects were held out."""
    if not {"train", "val"} <= files.keys():
        return
    trained = {one["category_id"] for one in files["train"].things}
    held = {one["category_id"] for one in files["val"].things}
    if lost := [files["val"].categories[key] for key in sorted(held - trained)]:
        names = ", ".join(lost[:8]) + " ..." * (len(lost) > 8)
        yield (
            f"no picture that is trained on has {names}: name data for evaluation, or another share"
        )


def _relative(name: str, folder: str) -> str:
    """Return a name that does not depend on the place of the data, also where a file has paths."""
    return os.path.relpath(name, folder) if os.path.isabs(name) else name  # noqa: PTH117


def _of_labels(source: LabelledPictures, wanted: Wanted) -> Found:
    parts, notes = _places(source, wanted)
    _check_parts(parts, str(source.source), wanted)
    if wanted.share is not None:
        part = parts["train"]
        chosen = held_out(map(stem, part.names), wanted.share)
        names = {
            side: [name for name, is_in in zip(part.names, flags, strict=True) if is_in]
            for side, flags in (("train", ~chosen), ("val", chosen))
        }
        parts = {
            "train": dataclasses.replace(part, names=names["train"]),
            "val": Part(folder=part.folder, names=names["val"]),
        }
        notes.append(_split_note(wanted.share, len(chosen), int(chosen.sum())))
    files, folders = {}, {}
    for name in wanted.parts:
        lists = as_coco(source, parts[name], scored=name == "val")
        notes += lists.notes
        data = {"images": lists.images, "categories": lists.categories}
        files[name] = checked(source.source, data, lists.annotations, boxes_only=wanted.boxes_only)
        folders[name] = str(parts[name].folder)
    notes += _untrained(files) if wanted.share is not None else ()
    notes.append(f"{source.source} is read as {source.form}")
    return Found(files=files, folders=folders, made=frozenset(files), notes=notes)


def _only(file: CocoFile, ids: set[int]) -> CocoFile:
    return dataclasses.replace(
        file,
        images={key: entry for key, entry in file.images.items() if key in ids},
        objects=[one for one in file.objects if one["image_id"] in ids],
    )


def place(found: Found, folder: Path, *, names: Sequence[str]) -> dict[str, CocoFile]:
    """Give files that are not on disk their paths, at which this process can read them already.

    Args:
        found: The data.
        folder: Folder of the run.
        names: Name of the file of each part, without suffix, in order of the parts.

    Returns:
        Part -> file; `write_placed` writes those that are not on disk.
    """
    _found.clear()  # its memory is that of the files, which are freed one by one
    files = dict(found.files)
    for part, name in zip(found.files, names, strict=True):
        if part in found.made:
            path = folder.absolute() / FOLDER / f"{name}.json"
            files[part] = dataclasses.replace(files[part], path=path)
            remember(files[part])
            _held.append(files[part])
    return files


def release() -> None:
    """Free the memory of all data that are not on disk; other processes read them again."""
    _found.clear()
    for file in _held:
        forget(file.path)
    _held.clear()


def write_placed(*, continues: bool) -> None:
    """Write the files of `place`, each completely or not at all; those that are there are compared.

    Args:
        continues: Whether a run goes on, whose data must be what they were.

    Raises:
        ValueError: If they are not.
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    new = [(file, _text(file)) for file in _held]
    _held.clear()
    new = [(file, text) for file, text in new if not _has(file.path, text)]
    for file, _ in new:
        if continues and file.path.exists():
            raise ValueError(
                f"the data are not those that the run began with, which are in {file.path}: bring "
                "them back, or choose another output"
            )
    for file, text in new:
        make_folder(file.path.parent)
        try:
            write_text(file.path, text)
        except OSError:  # perhaps other processes write the same
            if not _has(file.path, text):
                raise


def _has(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _text(file: CocoFile) -> str:
    objects = [{"id": number, **one} for number, one in enumerate(file.objects, start=1)]
    data = {
        "images": list(file.images.values()),
        "categories": [{"id": key, "name": name} for key, name in file.categories.items()],
    }
    parts = [f'"{key}": [{_lines(entries)}]' for key, entries in data.items()]
    return "{" + ",\n".join([*parts, f'"annotations": [{_lines(objects)}]']) + "}\n"


def _lines(entries: list[dict[str, Any]]) -> str:
    return ",\n".join(json.dumps(entry) for entry in entries)
