"""Run lengths of masks in COCO's run-length code (RLE), decoded and checked.

pycocotools does not check what it decodes, and writes beyond its memory if the runs are too long.
"""

from typing import Any

_LONGEST_NUMBER = 65  # bits: 13 characters


def run_lengths(counts: str) -> list[int]:
    """Decode the counts of a compressed RLE (cocoapi, maskApi.c: rleFrString).

    Args:
        counts: Its characters.

    Returns:
        The runs, of background and foreground in turn; in a broken code they may be negative.

    Raises:
        ValueError: If they end in the middle of a number or hold other characters.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if shift > _LONGEST_NUMBER:
            raise ValueError("a number of more than 64 bits")
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("it ends in the middle of a number")
    return lengths


def check_counts(counts: Any, pixels: int) -> None:
    """Check that counts cover an image.

    Args:
        counts: Of a compressed RLE (a string) or an uncompressed one (a list).
        pixels: Of the image.

    Raises:
        ValueError: If they are something else, do not decode, or cover more or less.
    """
    if isinstance(counts, str):
        try:
            lengths = run_lengths(counts)
        except ValueError as error:
            raise ValueError(f"has an RLE with broken counts: {error}") from error
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        lengths = counts
    else:
        raise ValueError("has an RLE whose counts are no string and no list of integers")
    if min(lengths, default=0) < 0:
        raise ValueError("has an RLE with a negative count; counts are runs of pixels")
    if sum(lengths) != pixels:
        covered = sum(lengths)
        shown = covered if covered < 2**63 else "too many"
        raise ValueError(f"has an RLE of {shown} pixels; its image has {pixels}")
