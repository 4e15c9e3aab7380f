"""Work of the demo: images in batches, frames of videos one by one; drawn and written."""

import argparse
import contextlib
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eva_classification.commands import JSON, TABLE
from eva_classification.inference.predictor import Predictor, require_finite
from eva_data.files import make_folder, printable, replacing
from eva_data.images import read_rgb, save_image
from eva_data.inputs import Job
from eva_report.demos import FoundClasses, Prediction, do_jobs, draw_video
from eva_report.sheets import CLASSES_SHOWN, annotate
from eva_runs.commands import say

MOST_WAITING = 64_000_000  # pixels of images that wait for a batch
_DIGITS = 6  # of a probability
Pixels = NDArray[np.uint8]


def classify(predictor: Predictor, jobs: Sequence[Job], args: argparse.Namespace) -> list[str]:
    """Do the jobs, with a progress bar.

    Args:
        predictor: The classifier.
        jobs: Jobs of `eva_classification.commands.plan`.
        args: Options of `eva_classification.commands.demo`.

    Returns:
        A complaint for each file that could not be read, or not to its end.
    """
    make_folder(args.output)
    top = min(args.top, len(predictor.class_names))
    found = FoundClasses(args.score_threshold)
    settings = {
        "weights": args.weights,
        "image_size": predictor.model.img_size,
        "crop_pct": predictor.crop_pct,
    }
    with writing_predictions(args.output, settings, top=top) as files:
        work = _Work(predictor, files, found, top=top, least=args.score_threshold)
        problems = do_jobs(jobs, work, title="classifying")
        work.finish()
    for line in found.lines():
        say(line)
    drawn = "" if args.no_pictures else "images, "
    say(f"output   {args.output} ({drawn}{JSON} and {TABLE})")
    return problems + work.problems


class _Waiting(NamedTuple):
    """An image that waits for its batch, or why it cannot be read."""

    job: Job
    rgb: Pixels | None = None
    prepared: Tensor | None = None
    problem: str = ""


class _Work:
    """Takes jobs; `finish` does those that wait.

    Attributes:
        problems: A complaint for each image that was read and not classified.
    """

    def __init__(
        self,
        predictor: Predictor,
        files: "PredictionsFiles",
        found: FoundClasses,
        *,
        top: int,
        least: float,
    ) -> None:
        self._predictor, self._files, self._found = predictor, files, found
        self._top, self._least, self._rows = top, least, min(top, CLASSES_SHOWN)
        self._waiting: list[_Waiting] = []
        self.problems: list[str] = []

    def __call__(self, job: Job) -> str | None:
        """Do a job, or let it wait; returns a complaint if it cannot be read."""
        try:
            if job.is_video or job.is_camera:
                self.finish()
                return self._video(job)
            rgb = read_rgb(job.source, upright=True)
            self._waiting.append(_Waiting(job, rgb, self._predictor.prepare(rgb)))
        except (ValueError, FloatingPointError) as error:
            problem = _sentence(job, error)
            self._waiting.append(_Waiting(job, problem=problem))
            return problem
        pixels = sum(one.rgb.size // 3 for one in self._waiting if one.rgb is not None)
        if len(self._waiting) >= self._predictor.batch_size or pixels > MOST_WAITING:
            self.finish()
        return None

    def finish(self) -> None:
        """Classify, draw and write what waits, in its order."""
        waiting, self._waiting = self._waiting, []
        batch = [one.prepared for one in waiting if one.prepared is not None]
        rows = iter(self._predictor.judge(batch)) if batch else iter(())
        for one in waiting:
            if one.rgb is None:
                self._files.add_unreadable(one.job.name, one.problem)
                continue
            row = next(rows)
            try:
                require_finite(row, str(one.job.source))
                self._image(one.job, one.rgb, self._predictor.top(row, self._top))
            except (ValueError, FloatingPointError) as error:
                self.problems.append(_sentence(one.job, error))
                self._files.add_unreadable(one.job.name, self.problems[-1])

    def _image(self, job: Job, rgb: Pixels, predictions: list[Prediction]) -> None:
        for target in job.targets:
            shown = self._shown(predictions)
            drawn = annotate(rgb, shown, rows=max(1, len(shown)))
            save_image(Image.fromarray(drawn), target)
        height, width = rgb.shape[:2]
        self._files.add(job.name, predictions, width=width, height=height)
        self._found.add(job.name, predictions[0])

    def _shown(self, predictions: list[Prediction]) -> list[Prediction]:
        return [one for one in predictions if one.probability >= self._least][: self._rows]

    def _video(self, job: Job) -> str | None:
        """Classify each frame; the mean over all of them stands for the video."""
        total = np.zeros(len(self._predictor.class_names))

        def draw(rgb: Pixels, index: int) -> Pixels:
            del index
            row = self._predictor.judge([self._predictor.prepare(rgb)])[0]
            require_finite(row, job.name)
            total[:] += row
            if not job.targets:
                return rgb
            shown = self._shown(self._predictor.top(row, self._top))
            return annotate(rgb, shown, rows=self._rows)  # all frames have one size

        frames, problem = draw_video(job, draw)
        if not frames:
            self._files.add_unreadable(job.name, problem or "it has no frames")
            return problem
        predictions = self._predictor.top((total / frames).astype(np.float32), self._top)
        more = {"error": problem} if problem else {}
        self._files.add(job.name, predictions, frames=frames, **more)
        self._found.add(job.name, predictions[0], frames=frames)
        return problem


def _sentence(job: Job, error: Exception) -> str:
    text = str(error)
    return text if str(job.source) in text else f"{job.source}: {text}"


class PredictionsFiles:
    """Takes the classes of one file after another; `writing_predictions` opens one.

    Args:
        stream: The open JSON file.
        table: The open CSV file.
        settings: What the JSON says first.
        top: Classes of a file that are written, at most.
    """

    def __init__(
        self, stream: TextIO, table: TextIO, settings: Mapping[str, Any], *, top: int
    ) -> None:
        self._stream, self._files = stream, 0
        self._table = csv.writer(table, lineterminator="\n")
        more = [f"{head}_{place}" for place in range(2, top + 1)
                for head in ("class", "probability")]  # fmt: skip
        self._table.writerow(["file", "class", "probability", *more])
        stream.write(f'{{"settings": {json.dumps(dict(settings))},\n"files": [')

    def add(self, name: str, predictions: Sequence[Prediction], **facts: Any) -> None:
        """Write a file's first classes, in falling order of probability, and what else is known."""
        rounded = [(one.name, round(one.probability, _DIGITS)) for one in predictions]
        classes = [{"class": name, "probability": value} for name, value in rounded]
        self._write({"file": name, **facts, "classes": classes})
        cells = [cell for one in rounded for cell in one]
        self._table.writerow([printable(str(cell)) for cell in (name, *cells)])

    def add_unreadable(self, name: str, reason: str) -> None:
        """Write a file that could not be read; the table has none of these."""
        self._write({"file": name, "error": reason})

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._stream.write(f"{',' if self._files else ''}\n  {json.dumps(entry)}")
        self._files += 1


@contextlib.contextmanager
def writing_predictions(
    folder: Path, settings: Mapping[str, Any], *, top: int
) -> Iterator[PredictionsFiles]:
    """Write predictions to files that appear under their names at the end.

    Args:
        folder: Folder of the files; it exists.
        settings: Settings of the demo.
        top: Classes of a file that are written, at most.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with (
        replacing(folder / JSON) as json_part,
        replacing(folder / TABLE) as table_part,
        json_part.open("w", encoding="utf-8") as stream,
        table_part.open("w", encoding="utf-8", newline="") as table,
    ):
        yield PredictionsFiles(stream, table, settings, top=top)
        stream.write("\n]}\n")
