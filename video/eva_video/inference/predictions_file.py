"""What a demo found in videos, in a file of JSON that is written as it comes."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from eva_data.files import replacing
from eva_report.demos import Prediction
from eva_video.inference.windows import Judged, Segment

_DIGITS = 6  # of a probability; times are in milliseconds


class PredictionsFile:
    """Takes windows and segments of one video after another; `writing_predictions` opens one.

    Args:
        stream: The open file.
        settings: What the file says first.
    """

    def __init__(self, stream: TextIO, settings: Mapping[str, Any]) -> None:
        self._stream = stream
        self._videos = self._windows = 0
        stream.write(f'{{"settings": {json.dumps(dict(settings))},\n"videos": [')

    @contextlib.contextmanager
    def video(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """Write a video; inside, `add_window` adds to it.

        Args:
            name: Name of the video.
            **facts: What else is known of it.

        Yields:
            A dict for what is written of it at the end.
        """
        head = json.dumps({"video": name, **facts})
        self._stream.write(f'{"," if self._videos else ""}\n{head[:-1]}, "windows": [')
        self._videos += 1
        self._windows = 0
        end: dict[str, Any] = {}
        try:
            yield end
        finally:  # what was found before an error stays readable
            rest = "".join(f", {json.dumps(name)}: {json.dumps(end[name])}" for name in end)
            self._stream.write(f"]{rest}}}")

    def add_window(self, window: Judged, predictions: Sequence[Prediction]) -> None:
        """Write a window of the current video.

        Args:
            window: Its times.
            predictions: Its first classes.
        """
        entry = {"start": round(window.start, 3), "end": round(window.end, 3),
                 "classes": [_entry(*one) for one in predictions]}  # fmt: skip
        self._stream.write(f"{',' if self._windows else ''}\n  {json.dumps(entry)}")
        self._windows += 1

    def add_unreadable(self, name: str, reason: str) -> None:
        """Write a video of which nothing could be read.

        Args:
            name: Name of the video.
            reason: Why not.
        """
        with self.video(name) as end:
            end |= {"segments": [], "error": reason}

    def finish(self) -> None:
        """Write what follows the videos."""
        self._stream.write("\n]}\n")


def segment_entries(found: Iterable[Segment], names: Sequence[str]) -> list[dict[str, Any]]:
    """Turn segments into what JSON can hold.

    Args:
        found: The segments.
        names: Names of the classes.
    """
    return [
        {"start": round(one.start, 3), "end": round(one.end, 3),
         **_entry(names[one.label], one.probability)}
        for one in found
    ]  # fmt: skip


def _entry(name: str, probability: float) -> dict[str, Any]:
    return {"class": name, "probability": round(probability, _DIGITS)}


@contextlib.contextmanager
def writing_predictions(file: Path, settings: Mapping[str, Any]) -> Iterator[PredictionsFile]:
    """Write predictions to a file that appears under its name at the end.

    Args:
        file: The file to write; its folder exists.
        settings: Settings of the demo.

    Yields:
        The file to add predictions to.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with replacing(file) as part, part.open("w", encoding="utf-8") as stream:
        predictions = PredictionsFile(stream, settings)
        yield predictions
        predictions.finish()
