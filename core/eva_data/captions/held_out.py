"""A share of the pictures with captions held out for validation."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eva_data.captions.captioned_images import CaptionedImages, MixedCaptions
from eva_data.holdout import held_out, stem


class ChosenCaptions(CaptionedImages):
    """Some of the pictures of a source, each with all of its captions.

    What makes no pair is counted by the source.

    Args:
        pairs: The source.
        indices: Indexes of the pictures.
    """

    def __init__(self, pairs: CaptionedImages, indices: Sequence[int]) -> None:
        super().__init__()
        self._pairs, self._places = pairs, np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def _place(self, index: int) -> int:
        return int(self._places[self.require(index)])

    def sample_id(self, index: int) -> str:
        """See `CaptionedImages`."""
        return self._pairs.sample_id(self._place(index))

    def name(self, index: int) -> str:
        """See `CaptionedImages`."""
        return self._pairs.name(self._place(index))

    def source(self, index: int) -> Path | bytes:
        """See `CaptionedImages`."""
        return self._pairs.source(self._place(index))

    def captions(self, index: int) -> tuple[str, ...]:
        """See `CaptionedImages`."""
        return self._pairs.captions(self._place(index))

    def checksum(self) -> int:
        """See `CaptionedImages`."""
        return zlib.crc32(self._places.tobytes(), self._pairs.checksum())


def hold_out(
    pairs: CaptionedImages, share: float, *, name: str
) -> tuple[ChosenCaptions, ChosenCaptions]:
    """Divide the pictures of a source by their names without suffix, of shards by their keys.

    A picture stays with all of its captions, and one that a manifest names several times is on one
    side, that of its first name; among those that are held out it comes once.

    Args:
        pairs: The source.
        share: Share of the pictures that is held out, see `eva_data.holdout`.
        name: Name of the setting, for messages.

    Returns:
        The pictures to train on and those that are held out.

    Raises:
        ValueError: If it is not a share, or one side would be empty.
    """
    names = (stem(pairs.name(index)) for index in range(len(pairs)))
    if isinstance(pairs, MixedCaptions):  # whose sources may name a picture below other folders
        first: dict[str, str] = {}
        places = (_place(pairs, index) for index in range(len(pairs)))
        names = (first.setdefault(place, one) for place, one in zip(places, names, strict=True))
    chosen = held_out(names, share, name=name)
    once = {_place(pairs, index): index for index in np.flatnonzero(chosen)[::-1].tolist()}
    return (
        ChosenCaptions(pairs, np.flatnonzero(~chosen).tolist()),
        ChosenCaptions(pairs, sorted(once.values())),
    )


def _place(pairs: CaptionedImages, index: int) -> str:
    return os.path.normpath(pairs.sample_id(index))
