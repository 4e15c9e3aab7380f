"""What is found out about pictures with captions: what cannot be read, and what comes twice."""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eva_data.captions.lists import UnreadableCaptionError
from eva_data.captions.sources import CaptionedImages
from eva_data.checks.findings import Findings
from eva_data.files import require_regular_file
from eva_data.images import check_encoded_size, read_image

Mask = NDArray[np.bool_]
_DIGEST = 8  # bytes: two of 400 million differ in all but one case of 200


class Block(NamedTuple):
    """What is known of some pairs.

    Attributes:
        problems: Index, kind and detail of each finding.
        pictures: Digest of each picture's content, (pairs,) uint64.
        captions: Digest of each picture's captions, (pairs,) uint64.
        words: Words of each caption.
        sides: Shorter side of each picture in pixels, 0 if it cannot be read.
    """

    problems: list[tuple[int, str, str]]
    pictures: NDArray[np.uint64]
    captions: NDArray[np.uint64]
    words: list[int]
    sides: NDArray[np.int32]


def look_at(pairs: CaptionedImages, indices: range, *, least_side: int, most_words: int) -> Block:
    """Read pairs and decode their pictures.

    Args:
        pairs: The pairs.
        indices: Which of them.
        least_side: Side in pixels below which a picture is noted as small.
        most_words: Words above which a caption is noted as long.
    """
    count = len(indices)
    found = Block(
        [], np.zeros(count, np.uint64), np.zeros(count, np.uint64), [], np.zeros(count, np.int32)
    )
    for place, index in enumerate(indices):
        try:
            texts = pairs.captions(index)
            content = _content(pairs, index)
            picture = read_image(content, upright=False, name=pairs.sample_id(index))
        except (OSError, ValueError) as error:
            kind = "caption" if isinstance(error, UnreadableCaptionError) else "unreadable"
            detail = str(error).removeprefix(pairs.sample_id(index)).lstrip(": ")
            found.problems.append((index, kind, detail))
            continue
        found.pictures[place] = _digest(content)
        found.captions[place] = _digest("\0".join(texts).encode())
        found.sides[place] = min(picture.size)
        if found.sides[place] < least_side:
            width, height = picture.size
            found.problems.append((index, "small", f"{width} x {height} px"))
        words = [len(text.split()) for text in texts]
        found.words.extend(words)
        if max(words) > most_words:
            found.problems.append((index, "wordy", f"{max(words):,} words"))
    return found


def find_copies(
    pairs: CaptionedImages,
    pictures: NDArray[np.uint64],
    captions: NDArray[np.uint64],
    findings: Findings,
    keep: Mask,
) -> None:
    """Find pairs that come twice, pictures with several captions, captions of several pictures.

    Args:
        pairs: The pairs.
        pictures: Digest of each picture's content.
        captions: Digest of each picture's captions.
        findings: Filled.
        keep: Pairs that are kept so far; those that are left out are taken away.
    """
    both = pictures * np.uint64(0x9E3779B97F4A7C15) ^ captions
    twice = _further(both, keep)
    findings.add_many("twice", len(twice), (pairs.sample_id(int(index)) for index in twice))
    keep[twice] = False
    for kind, digests in (("copy", pictures), ("same_caption", captions)):
        further = _further(digests, keep)
        findings.add_many(kind, len(further), (pairs.sample_id(int(one)) for one in further))


def _further(digests: NDArray[np.uint64], keep: Mask) -> NDArray[np.int64]:
    """Find the kept pairs whose digest an earlier kept pair has."""
    places = np.flatnonzero(keep)
    _, first = np.unique(digests[places], return_index=True)
    return np.delete(places, first)


def _content(pairs: CaptionedImages, index: int) -> bytes:
    source = pairs.source(index)
    if isinstance(source, bytes):
        return source
    require_regular_file(source)
    check_encoded_size(source.stat().st_size, str(source))
    return source.read_bytes()


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=_DIGEST).digest(), "little")
