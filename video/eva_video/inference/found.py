"""What the demo says that it found: what happens in each video, when, and in all of them."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from eva_data.files import printable
from eva_report.demos import FILES_NAMED, Prediction, counted, lower, nothing_at, scored
from eva_report.drawing import clock, score_text
from eva_video.inference.windows import Segment

CLASSES_NAMED = 3  # of a video that is one window
_LINES = 20  # for segments, of all videos together
_TOTAL_NAMED = 10  # classes of all videos together


class Seen(NamedTuple):
    """What was found in a video.

    Attributes:
        name: Name of the video.
        duration: Its length in seconds.
        first: Its first classes, if it was judged as one window; else none.
        segments: What happens when, above the threshold.
        best: The most likely class of any moment.
    """

    name: str
    duration: float
    first: Sequence[Prediction]
    segments: Sequence[Segment]
    best: Prediction


class FoundActions:
    """Collects what was found, for the lines at the end of a demo.

    Args:
        names: Names of the classes.
        threshold: Least probability of what counts as found.
    """

    def __init__(self, names: Sequence[str], threshold: float) -> None:
        self._names, self._threshold = names, threshold
        self._videos: list[Seen] = []

    def add(self, video: Seen) -> None:
        """Add what was found in a video."""
        self._videos.append(video)

    def lines(self) -> list[str]:
        """Return lines for each video, of up to `FILES_NAMED`, and one for all of them."""
        lines: list[str] = []
        if len(self._videos) <= FILES_NAMED:
            for video in self._videos:
                lines += self._lines(video)
        if len(self._videos) > 1:
            lines.append(self._total())
        if lines and not any(video.segments for video in self._videos):
            lines[-1] += f": {lower()}"
        return [printable(line) for line in lines]

    def _lines(self, video: Seen) -> list[str]:
        if not video.segments:
            return [f"{video.name}: {nothing_at(self._threshold, video.best)}"]
        if video.first:
            likely = [one for one in video.first if one.probability >= self._threshold]
            return [f"{video.name}: {scored(likely[:CLASSES_NAMED])}"]
        number = len(video.segments)
        lines = [f"{video.name}: {clock(video.duration)}, {counted(number, 'segment')}"]
        room = max(1, _LINES // len(self._videos))
        lines += [
            f"  {clock(one.start):>9} - {clock(one.end):<9}  {score_text(one.probability)}  "
            f"{self._names[one.label]}"
            for one in video.segments[:room]
        ]
        if number > room:
            lines.append(f"  and {number - room:,} more: predictions.json has all")
        return lines

    def _total(self) -> str:
        videos = counted(len(self._videos), "video")
        if all(video.first for video in self._videos):
            counts = Counter(
                video.first[0].name if video.segments else "" for video in self._videos
            )
            nothing = counts.pop("", 0)
            parts = [f"{count:,} {name}" for name, count in counts.most_common(_TOTAL_NAMED)]
        else:
            times: Counter[str] = Counter()
            for video in self._videos:
                for one in video.segments:
                    times[self._names[one.label]] += one.end - one.start  # type: ignore[assignment]
            videos += f", {clock(sum(video.duration for video in self._videos))}"
            nothing = sum(not video.segments for video in self._videos)
            parts = [f"{clock(time)} {name}" for name, time in times.most_common(_TOTAL_NAMED)]
        if not parts:
            best = max((video.best for video in self._videos), key=lambda one: one.probability)
            return f"{videos}: {nothing_at(self._threshold, best)}"
        return f"{videos}: {', '.join(parts)}" + (f", nothing in {nothing:,}" if nothing else "")
