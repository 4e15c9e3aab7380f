"""Label maps as files: one integer for each pixel, and the class that it stands for.

This module needs neither torch nor mmsegmentation.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eva_data.images import UnreadableImageError, open_image

IGNORED = 255  # what the loss and the metric leave out
_SHOWN = 3
_DEEP = ("I;16", "I;16B", "I;16L")
_MODES = ("1", "L", "P", "I", *_DEEP)  # one integer for each pixel
LabelMap = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int32]


class LabelMapError(UnreadableImageError):
    """A label map that cannot be used; the message names it."""


def read_label_map(path: Path) -> LabelMap:
    """Read the label values (H, W) of a file, palette or not.

    Raises:
        LabelMapError: A ValueError, if it is unreadable or does not hold integers.
    """
    try:
        with open_image(path, name="it", decode=True) as stored:
            mode = stored.mode
            if mode in _MODES:
                values = np.asarray(stored)
                kind = {"1": np.uint8}.get(mode, np.uint16 if mode in _DEEP else values.dtype)
                return values.astype(kind, copy=False)
    except UnreadableImageError as error:
        raise LabelMapError(f"cannot read {path} as a label map: {error}") from error
    what = "fractions" if mode == "F" else "colours"
    raise LabelMapError(
        f"{path} holds {what} (mode {mode}); a label map has one integer for each pixel: "
        f"replace {what} by numbers first"
    )


class LabelTable:
    """Turns label values into class indices.

    Args:
        labels: Value of each class.
        ignore: Values without a class.
    """

    def __init__(self, labels: Sequence[int], ignore: Sequence[int]) -> None:
        self._table = np.full(max(*labels, *ignore) + 2, -1, np.int16)  # the last: beyond all
        self._table[list(ignore)] = IGNORED
        self._table[list(labels)] = np.arange(len(labels))

    def __call__(self, values: LabelMap, path: Path | str) -> NDArray[np.uint8]:
        """Find class indices (H, W) of label values; `IGNORED` where a pixel has no class.

        Args:
            values: Label values as `read_label_map` returns them.
            path: Path of the file, for the message.

        Raises:
            LabelMapError: A ValueError, if a value neither belongs to a class nor is ignored.
        """
        indices = self._table[np.clip(values, 0, len(self._table) - 1)]
        if indices.min(initial=0) < 0 or values.min(initial=0) < 0:
            unknown = np.unique(values[(indices < 0) | (values < 0)]).tolist()
            some = ", ".join(map(str, unknown[:_SHOWN])) + (", ..." if unknown[_SHOWN:] else "")
            raise LabelMapError(
                f"{path} has labels that are neither a class's nor ignored: {some}; name them in "
                "the class file, or correct the map"
            )
        return indices.astype(np.uint8)
