"""Checks of the samples that training reads from manifests: images, and images with captions."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from eva_data.captions.lists import LEFT_OUT, UnreadableCaptionError
from eva_data.captions.sources import CaptionedImages, SourceCaptions
from eva_data.checks.findings import Findings, Kind
from eva_data.files import require_regular_file
from eva_data.image_sources import FolderImages, ShardImages
from eva_data.images import UnreadableImageError, check_encoded_size, read_image
from eva_data.index import Table
from eva_data.manifests import SourceEntry
from eva_data.pools import map_blocks

_OUT = "left out"
_SMALL = Kind("image with a side below --least-side", "kept", note=True)
_SOURCE = Kind("source that cannot be used", "no index is written")
IMAGE_KINDS = {
    "source": _SOURCE,
    "unreadable": Kind("image that cannot be read", "left out of the index"),
    "small": _SMALL,
}
PAIR_KINDS = {
    "source": _SOURCE,
    **{name: Kind(text, _OUT) for name, text in LEFT_OUT.items()},
    "caption": Kind("caption that cannot be read", _OUT),
    "unreadable": Kind("image that cannot be read", _OUT),
    "twice": Kind("pair with the image and the caption of another", "left out but the first"),
    "copy": Kind("image with the content of another, other caption", "kept", note=True),
    "same_caption": Kind("caption that another image has too", "kept", note=True),
    "wordy": Kind("caption of more than --most-words words, which may be cut", "kept", note=True),
    "small": _SMALL,
}
_DIGEST = 8  # bytes: two of 400 million differ in all but one case of 200
Mask = NDArray[np.bool_]
Source = TypeVar("Source", FolderImages | ShardImages, SourceCaptions)


class Block(NamedTuple):
    """What is known of some samples.

    Attributes:
        problems: Index, kind and detail of each finding.
        facts: Arrays by name, which are put together over all blocks.
    """

    problems: list[tuple[int, str, str]]
    facts: Mapping[str, NDArray[Any]]


def read_source(
    entry: SourceEntry,
    source: Source,
    reopen: Callable[[SourceEntry, Table], Source],
    look: Callable[[Any, range], Block],
    findings: Findings,
    *,
    workers: int,
) -> tuple[Mask, dict[str, NDArray[Any]]]:
    """Read all samples of a source of a manifest.

    Args:
        entry: The source.
        source: Its samples.
        reopen: Function that opens it by its table; worker processes map that from a file.
        look: `look_at_images` or `look_at_pairs`.
        findings: Gains the findings.
        workers: Number of processes.

    Returns:
        Which samples are kept, (number of samples,), and the facts about them.
    """
    keep, parts = np.ones(len(source), bool), dict[str, list[NDArray[Any]]]()
    samples: Source = source
    with tempfile.TemporaryDirectory() as folder:
        if workers > 1:
            source.table.save(file := Path(folder) / "source")
            samples = reopen(entry, Table.open(file, kind=source.table.kind))
        for block in map_blocks(look, samples, workers=workers, what=entry.name):
            for index, kind, detail in block.problems:
                findings.add(kind, source.sample_id(index), detail)
                keep[index] &= findings.kinds[kind].note
            for name, values in block.facts.items():
                parts.setdefault(name, []).append(values)
    return keep, {name: np.concatenate(values) for name, values in parts.items()}


def look_at_images(source: FolderImages | ShardImages, indices: range, *, least_side: int) -> Block:
    """Decode images as pre-training does.

    Args:
        source: The images.
        indices: Which of them.
        least_side: Side in pixels below which an image is noted as small.
    """
    problems = []
    for index in indices:
        try:
            height, width = source.decode(index).shape[-2:]
        except UnreadableImageError as error:
            problems.append((index, "unreadable", _detail(error, source.sample_id(index))))
            continue
        if min(height, width) < least_side:
            problems.append((index, "small", f"{width} x {height} px"))
    return Block(problems, {})


def look_at_pairs(
    pairs: CaptionedImages, indices: range, *, least_side: int, most_words: int
) -> Block:
    """Read pairs and decode their images.

    Args:
        pairs: The pairs.
        indices: Which of them.
        least_side: Side in pixels below which an image is noted as small.
        most_words: Words above which a caption is noted as long.

    Returns:
        The facts are digests of each image's content and of its captions, (pairs,) uint64, and the
        words of each caption.
    """
    problems, words = list[tuple[int, str, str]](), list[int]()
    images, captions = (np.zeros(len(indices), np.uint64) for _ in range(2))
    for place, index in enumerate(indices):
        name = pairs.sample_id(index)
        try:
            texts, content = pairs.captions(index), _content(pairs, index)
            width, height = read_image(content, upright=False, name=name).size
        except (OSError, ValueError) as error:
            kind = "caption" if isinstance(error, UnreadableCaptionError) else "unreadable"
            problems.append((index, kind, _detail(error, name)))
            continue
        images[place], captions[place] = _digest(content), _digest("\0".join(texts).encode())
        lengths = [len(text.split()) for text in texts]
        words += lengths
        if min(width, height) < least_side:
            problems.append((index, "small", f"{width} x {height} px"))
        if max(lengths) > most_words:
            problems.append((index, "wordy", f"{max(lengths):,} words"))
    return Block(problems, {"images": images, "captions": captions, "words": np.array(words, int)})


def _content(pairs: CaptionedImages, index: int) -> bytes:
    source = pairs.source(index)
    if isinstance(source, bytes):
        return source
    require_regular_file(source)
    check_encoded_size(source.stat().st_size, str(source))
    return source.read_bytes()


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=_DIGEST).digest(), "little")


def _detail(error: Exception, name: str) -> str:
    return str(error).removeprefix(name).lstrip(": ")


def find_copied_pairs(
    pairs: CaptionedImages, facts: Mapping[str, NDArray[Any]], findings: Findings, keep: Mask
) -> None:
    """Find pairs that come twice, images with several captions, captions of several images.

    Args:
        pairs: The pairs.
        facts: See `look_at_pairs`.
        findings: Gains the findings.
        keep: Pairs that are kept so far; those that are left out are taken away.
    """

    def further(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        places = np.flatnonzero(keep)
        return np.delete(places, np.unique(digests[places], return_index=True)[1])

    both = facts["images"] * np.uint64(0x9E3779B97F4A7C15) ^ facts["captions"]
    for kind, digests in (
        ("twice", both),
        ("copy", facts["images"]),
        ("same_caption", facts["captions"]),
    ):
        found = further(digests)
        findings.add_many(kind, len(found), (pairs.sample_id(int(one)) for one in found))
        if not findings.kinds[kind].note:
            keep[found] = False


def all_samples(source: FolderImages | ShardImages | SourceCaptions) -> Mask:
    """Make the mask that keeps all samples."""
    return np.ones(len(source), bool)


def numbers_of(facts: Mapping[str, NDArray[Any]], keep: Mask) -> dict[str, Any]:
    """Count captions and their words.

    Args:
        facts: See `look_at_pairs`; nothing for images without captions.
        keep: Pairs that are kept.
    """
    if not len(facts.get("words", ())):
        return {}
    words = facts["words"]
    return {
        "captions": len(words),
        "median_words": float(np.median(words)),
        "most_words": int(words.max()),
        "distinct_captions": len(np.unique(facts["captions"][keep])),
    }
