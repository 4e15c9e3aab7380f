"""What a demo of segmentation says that it found: shares of the classes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eva_data.files import printable
from eva_report.demos.found import FILES_NAMED

_CLASSES_NAMED = 10
_LEAST = 0.005  # share of the pixels


class FoundShares:
    """Counts pixels of each class, for the lines at the end of a demo.

    Args:
        names: Name of each class.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [name.strip() for name in names]
        self._files: list[tuple[str, Counter[int]]] = []

    def add(self, name: str, classes: NDArray[np.integer[Any]]) -> None:
        """Count a picture, or a further frame of the last video.

        Args:
            name: Name of the file.
            classes: (H, W) indices.
        """
        if not self._files or self._files[-1][0] != name:
            self._files.append((name, Counter()))
        indices, pixels = np.unique(classes, return_counts=True)
        self._files[-1][1].update(dict(zip(indices.tolist(), pixels.tolist(), strict=True)))

    def lines(self) -> list[str]:
        """Return a line for each file, up to `FILES_NAMED`, and one for all of them."""
        lines: list[str] = []
        if len(self._files) <= FILES_NAMED:
            lines = [f"{name}: {self._listed(counts)}" for name, counts in self._files]
        if len(self._files) > 1:
            total = sum((counts for _, counts in self._files), Counter[int]())
            lines.append(f"{len(self._files):,} files: {self._listed(total)}")
        return [printable(line) for line in lines]

    def _listed(self, counts: Counter[int]) -> str:
        """List classes, the largest first."""
        total = counts.total()
        ordered = [(index, count / total) for index, count in counts.most_common()]
        shown = [pair for pair in ordered if pair[1] >= _LEAST][:_CLASSES_NAMED] or ordered[:1]
        named = [f"{self._names[index]} {100 * share:.0f} %" for index, share in shown]
        if more := len(ordered) - len(shown):
            named.append(f"{more} more class{'es' if more > 1 else ''}")
        return ", ".join(named)
