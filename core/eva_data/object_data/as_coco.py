"""Labelled pictures of any form as COCO's lists, with ids in order of the names."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from eva_data.object_data.content import LabelledPictures, Part, Report, refuse
from eva_data.object_data.sizes import read_sizes

_MOST_UNREADABLE = 10  # pictures; as many as a run may meet by default
_SHOWN = 3


class Lists(NamedTuple):
    """A part in COCO's way.

    Attributes:
        images: Entries with `id`, `file_name`, `width` and `height`; ids are from 1.
        categories: Entries with `id` and `name`.
        annotations: Entries as of `LabelledPictures.objects`, with `image_id` and `id`; read as
            they are asked for.
        notes: Sentences on what was left out.
        unreadable: A sentence on each picture that was left out.
    """

    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: Iterator[dict[str, Any]]
    notes: list[str]
    unreadable: list[str]


def as_coco(
    source: LabelledPictures, part: Part, *, scored: bool, report: Report = refuse
) -> Lists:
    """List the pictures of a part and their objects.

    Args:
        source: The data set.
        part: The part.
        scored: Whether it is for evaluation.
        report: Receives what is wrong; by default it is raised.

    Returns:
        The lists.

    Raises:
        ValueError: If pictures are missing, or many of them cannot be read.
    """
    if part.absent:
        total = len(part.names) + len(part.absent)
        report(
            f"{len(part.absent)} of {total} pictures of {source.source} are not there (the first: "
            f"{part.absent[0]})"
        )
    images: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for name, size in zip(part.names, read_sizes(part.folder, part.names), strict=True):
        if isinstance(size, str):
            unreadable.append(size)
        else:
            entry = {"file_name": name, "height": size[0], "width": size[1]}
            images.append({"id": len(images) + 1, **entry})
    notes = []
    if unreadable:
        more = ", ..." if len(unreadable) > _SHOWN else ""
        text = (
            f"{len(unreadable)} of {len(part.names)} pictures in {part.folder} cannot be read "
            f"({', '.join(unreadable[:_SHOWN])}{more})"
        )
        if report is refuse and (len(unreadable) > _MOST_UNREADABLE or not images):
            report(f"{text}: more than {_MOST_UNREADABLE} are not left out; replace or remove them")
        notes.append(f"{text}: left out")
    names = enumerate(source.classes, start=1)
    return Lists(
        images,
        [{"id": number, "name": name} for number, name in names],
        _annotations(source, part, images, scored, report),
        notes,
        unreadable,
    )


def _annotations(
    source: LabelledPictures,
    part: Part,
    images: list[dict[str, Any]],
    scored: bool,
    report: Report,
) -> Iterator[dict[str, Any]]:
    number = 0
    for image in images:
        size = image["height"], image["width"]
        for one in source.objects(part, image["file_name"], size, scored=scored, report=report):
            number += 1
            yield {"id": number, "image_id": image["id"], **one}
