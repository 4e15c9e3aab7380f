"""Classes of pictures and videos: how demos and predictors name them, and what a demo says of them.

Shapes: K classes.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from eva_data.files import printable
from eva_report.demos.found import FILES_NAMED, counted, counted_files, listed_counts, lower, quoted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Prediction(NamedTuple):
    """A class and its probability."""

    name: str
    probability: float


def first_classes(
    probabilities: "NDArray[np.float32]", names: Sequence[str], number: int
) -> list[Prediction]:
    """Name the classes with the largest probabilities.

    Args:
        probabilities: (K,).
        names: Names of the K classes.
        number: Number of classes, at most.

    Returns:
        The classes, in falling order of probability.
    """
    order = (-probabilities).argsort(kind="stable")[:number].tolist()
    return [Prediction(names[k], float(probabilities[k])) for k in order]


def scored(predictions: Sequence[Prediction]) -> str:
    """Write classes with their probabilities in a line: `jump 0.70, swim 0.20`."""
    from eva_report.drawing.style import score_text  # numpy

    return ", ".join(f"{quoted(name)} {score_text(value)}" for name, value in predictions)


def nothing_at(threshold: float, best: Prediction) -> str:
    """Say that no class is likely enough, and which comes closest.

    Args:
        threshold: Least probability of what counts as found.
        best: The most likely class.
    """
    from eva_report.drawing.style import score_text  # numpy

    best_is = f"the best score is {score_text(best.probability)} ({best.name})"
    return f"nothing at {threshold:g}; {best_is}"


class FoundClasses:
    """Counts the first classes of pictures, for the lines at the end of a demo.

    Args:
        threshold: Least probability of what counts as found.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._lines: list[str] = []
        self._counts: Counter[str] = Counter()
        self._pictures = self._nothing = 0
        self._videos: list[int] = []
        self._best = Prediction("", -1.0)

    def add(self, name: str, first: Prediction, *, frames: int | None = None) -> None:
        """Count a file.

        Args:
            name: Name of the file.
            first: Its most likely class.
            frames: Frames of a video; None for pictures.
        """
        self._best = max(self._best, first, key=lambda one: one.probability)
        if frames is None:
            self._pictures += 1
        else:
            self._videos.append(frames)
        likely = first.probability >= self._threshold
        if likely:
            self._counts[first.name] += 1
        else:
            self._nothing += 1
        if len(self._lines) <= FILES_NAMED:
            of_frames = "" if frames is None else f"{counted(frames, 'frame')}: "
            what = scored([first]) if likely else nothing_at(self._threshold, first)
            self._lines.append(f"{name}: {of_frames}{what}")

    def lines(self) -> list[str]:
        """Return a line for each file, up to `FILES_NAMED`, and one for all of them.

        Where nothing was found in any of them, there is that line alone.
        """
        files = self._pictures + len(self._videos)
        lines: list[str] = []
        if files == 1 or (self._counts and files <= FILES_NAMED):
            lines = self._lines[:files]
        if files > 1:
            lines.append(f"{counted_files(self._pictures, self._videos)}: {self._total()}")
        if lines and not self._counts:
            lines[-1] += f": {lower()}"
        return [printable(line) for line in lines]

    def _total(self) -> str:
        if not self._counts:
            return nothing_at(self._threshold, self._best)
        nothing = f", nothing in {self._nothing:,}" if self._nothing else ""
        return listed_counts(self._counts) + nothing
