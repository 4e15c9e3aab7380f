"""What a demo says that it found: objects of each file and in total."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eva_data.files import printable

FILES_NAMED = 20  # with more, only the total is said
BEST_ASKED = 20  # pictures whose best score is looked for, where nothing was found so far
_CLASSES_NAMED = 10


class _File(NamedTuple):
    name: str
    counts: Counter[str]
    frames: int | None
    best: float | None


def lower(option: str = "--score-threshold") -> str:
    """Say how a demo that found nothing is run again: its results are there by then.

    Args:
        option: Option of the least score.
    """
    return f"lower {option}, with --overwrite"


class FoundObjects:
    """Counts what was found, for the lines at the end of a demo.

    Args:
        threshold: Least score of what counts as found.
        option: Option that lowers it.
        unit: What is counted: "object".
    """

    def __init__(
        self, threshold: float, *, option: str = "--score-threshold", unit: str = "object"
    ) -> None:
        self._threshold, self._option, self._unit = threshold, option, unit
        self._files: list[_File] = []
        self._asked = 0

    @property
    def wants_best(self) -> bool:
        """Whether the best score of a picture without objects is worth looking for.

        It may need another forward pass: it is asked for up to `BEST_ASKED` times, while nothing
        has been found.
        """
        return self._asked < BEST_ASKED and not any(one.counts for one in self._files)

    def add(
        self,
        name: str,
        classes: Iterable[str],
        *,
        best: float | None = None,
        frames: int | None = None,
    ) -> None:
        """Count what was found in a file.

        Args:
            name: Name of the file.
            classes: Class of each object that was found; of a video, of all its frames.
            best: Best score where nothing was found, if it is known.
            frames: Frames of a video; None for pictures.
        """
        self._asked += best is not None
        self._files.append(_File(name, Counter(classes), frames, best))

    def lines(self) -> list[str]:
        """Return a line for each file, up to `FILES_NAMED`, and one for all of them.

        Where nothing was found in any of them, there is that line alone.
        """
        lines: list[str] = []
        anything = any(one.counts for one in self._files)
        if len(self._files) == 1 or (anything and len(self._files) <= FILES_NAMED):
            lines = [self._line(one) for one in self._files]
        if len(self._files) > 1:
            lines.append(self._total())
        if lines and not anything and self._best() is not None:
            lines[-1] += f": {lower(self._option)}"
        return [printable(line) for line in lines]

    def _best(self) -> float | None:
        return max((one.best for one in self._files if one.best is not None), default=None)

    def _line(self, one: _File) -> str:
        frames = "" if one.frames is None else f"{counted(one.frames, 'frame')}: "
        what = listed_counts(one.counts) if one.counts else self._nothing(one.best)
        return f"{one.name}: {frames}{what}"

    def _nothing(self, best: float | None) -> str:
        from eva_report.drawing.style import score_text  # numpy

        text = f"nothing at {self._threshold:g}"
        return text if best is None else f"{text}; the best score is {score_text(best)}"

    def _total(self) -> str:
        pictures = sum(one.frames is None for one in self._files)
        videos = [one.frames for one in self._files if one.frames is not None]
        where = counted_files(pictures, videos)
        counts = sum((one.counts for one in self._files), Counter[str]())
        if not counts:
            return f"{where}: {self._nothing(self._best())}"
        return f"{where}: {counted(counts.total(), self._unit)}: {listed_counts(counts)}"


def counted_files(pictures: int, videos: Sequence[int]) -> str:
    """Count files: `2 pictures and 1 video (300 frames)`.

    Args:
        pictures: Number of pictures.
        videos: Number of frames of each video.
    """
    parts = [counted(pictures, "picture")] if pictures else []
    if videos:
        parts.append(f"{counted(len(videos), 'video')} ({counted(sum(videos), 'frame')})")
    return " and ".join(parts)


def listed_counts(counts: Counter[str]) -> str:
    """List classes with their numbers, the most frequent first: `3 dog, 1 cat`."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    named = [f"{count:,} {quoted(name)}" for name, count in ordered[:_CLASSES_NAMED]]
    if more := ordered[_CLASSES_NAMED:]:
        named.append(f"{sum(count for _, count in more):,} of {len(more)} more classes")
    return ", ".join(named)


def quoted(name: str) -> str:
    """Quote the name of a class that begins like a number, as those of digits do."""
    return f'"{name}"' if name[:1].isdecimal() else name


def counted(count: int, noun: str) -> str:
    """Write a number of things: `1 picture`, `1,200 frames`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
