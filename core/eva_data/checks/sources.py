"""Checks of the samples that training reads from manifests: images, and images with captions."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from eva_data.captions.lists import LEFT_OUT, UnreadableCaptionError
from eva_data.captions.sources import SourceCaptions
from eva_data.checks.findings import Findings, Kind
from eva_data.index import Table
from eva_data.manifests import SourceEntry
from eva_data.pools import map_blocks

if TYPE_CHECKING:
    from eva_data.image_sources import Images  # loads torch

IMAGE_KINDS = {
    "source": Kind("source that cannot be used", "no index is written"),
    "unreadable": Kind("image that cannot be read", "left out of the index"),
}
PAIR_KINDS = {
    **IMAGE_KINDS,
    **LEFT_OUT,
    "caption": Kind("caption that cannot be read", "left out of the index"),
}
Source = TypeVar("Source", "Images", SourceCaptions)


def read_source(
    entry: SourceEntry,
    source: Source,
    reopen: Callable[[SourceEntry, Table], Source],
    findings: Findings,
    *,
    workers: int,
) -> NDArray[np.bool_]:
    """Read all samples of a source of a manifest as training does: which can be read, (samples,).

    `reopen` opens it by its table, which worker processes map from a file.
    """
    keep = np.ones(len(source), bool)
    samples: Source = source
    with tempfile.TemporaryDirectory() as folder:
        if workers > 1:
            source.table.save(file := Path(folder) / "source")
            samples = reopen(entry, Table.open(file, kind=source.table.kind))
        for problems in map_blocks(_problems_of, samples, workers=workers, title=entry.name):
            for index, kind, detail in problems:
                findings.add(kind, source.sample_id(index), detail)
                keep[index] = False
    return keep


def _problems_of(source: "Images | SourceCaptions", indices: range) -> list[tuple[int, str, str]]:
    """Read some samples: index, kind and detail of those that cannot be read."""
    problems = []
    for index in indices:
        try:
            if isinstance(source, SourceCaptions):
                source.captions(index)
                source.image(index)
            else:
                source.decode(index)
        except OSError as error:
            kind = "caption" if isinstance(error, UnreadableCaptionError) else "unreadable"
            detail = str(error).removeprefix(source.sample_id(index)).lstrip(": ")
            problems.append((index, kind, detail))
    return problems
