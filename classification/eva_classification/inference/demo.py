"""Work of the demo: images in batches, frames of videos one by one; drawn and written."""

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eva_classification.commands import JSON, TABLE
from eva_classification.inference.predictor import Predictor
from eva_data.images import save_image
from eva_data.inputs import Job
from eva_data.saving import make_folder
from eva_engine.evaluation.own_data import DemoResults, entry_of
from eva_report.demos import describe_error, draw_video, run_jobs
from eva_report.page import write_csv
from eva_report.sheets import annotate
from eva_runs.precision import require_finite

MOST_WAITING = 64_000_000  # pixels of images that wait for a batch
Pixels = NDArray[np.uint8]
Entry = dict[str, Any]  # of a file in predictions.json


def classify(predictor: Predictor, jobs: Sequence[Job], args: argparse.Namespace) -> list[str]:
    """Do the jobs of `classification/demo.py`, with a progress bar.

    Returns:
        A complaint for each file that could not be read, or not to its end.
    """
    make_folder(args.output)
    work = _Work(predictor, args)
    problems = run_jobs(jobs, work, title="classifying")
    work.finish()
    work.write_table()
    work.results.write(
        args.output / JSON,
        "files",
        drawn="" if args.no_images else f"images, {TABLE} and ",
        settings={"image_size": predictor.model.img_size, "crop_pct": predictor.crop_pct},
    )
    return problems + work.problems


class _Waiting(NamedTuple):
    """An image that waits for its batch."""

    job: Job
    entry: Entry
    rgb: Pixels
    prepared: Tensor


class _Work:
    """Takes jobs; `finish` does those that wait."""

    def __init__(self, predictor: Predictor, args: argparse.Namespace) -> None:
        self._predictor, self._args = predictor, args
        self._waiting: list[_Waiting] = []
        self.results = DemoResults(predictor, args)
        self.problems: list[str] = []  # images that were read and not classified

    def __call__(self, job: Job) -> str | None:
        """Do a job, or let it wait; returns a complaint if it cannot be read."""
        entry: Entry = {"file": job.name}
        self.results.entries.append(entry)
        try:
            if job.is_video or job.is_camera:
                self.finish()
                return self._video(job, entry)
            image = self._predictor.read_image(job.source)
            prepared = self._predictor.prepare(image)
            drawn = self._predictor.draw_image(image)
            self._waiting.append(_Waiting(job, entry, drawn, prepared))
        except (ValueError, FloatingPointError) as error:
            entry["error"] = describe_error(job, error)
            return str(entry["error"])
        pixels = sum(item.rgb.size // 3 for item in self._waiting)
        if len(self._waiting) >= self._predictor.batch_size or pixels > MOST_WAITING:
            self.finish()
        return None

    def finish(self) -> None:
        """Classify, draw and note what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = self._predictor.judge([item.prepared for item in waiting])
        for item, row in zip(waiting, rows, strict=True):
            try:
                require_finite(row, f"predictions for {item.job.source}")
                self._image(item, row)
            except (ValueError, FloatingPointError) as error:
                item.entry["error"] = describe_error(item.job, error)
                self.problems.append(item.entry["error"])

    def write_table(self) -> None:
        """Write the first classes of each file that could be classified as a table."""
        args = self._args
        top = min(args.top, len(self._predictor.class_names))
        more = [f"{name}_{k}" for k in range(2, top + 1) for name in ("class", "probability")]
        rows = [
            [
                entry["file"],
                *(cell for prediction in entry["classes"] for cell in prediction.values()),
            ]
            for entry in self.results.entries
            if "classes" in entry
        ]
        write_csv(args.output / TABLE, ["file", "class", "probability", *more], rows)

    def _image(self, item: _Waiting, row: NDArray[np.float32]) -> None:
        for target in item.job.targets:
            shown = self.results.shown(row)
            drawn = annotate(item.rgb, shown, rows=max(1, len(shown)))
            save_image(Image.fromarray(drawn), target)
        height, width = item.rgb.shape[:2]
        self._note(item.entry, row, width=width, height=height)

    def _note(self, entry: Entry, row: NDArray[np.float32], **facts: Any) -> None:
        first = self.results.first(row)
        entry |= {**facts, "classes": [*map(entry_of, first)]}
        self.results.summary.add_first(entry["file"], first[0], frames=facts.get("frames"))

    def _video(self, job: Job, entry: Entry) -> str | None:
        """Classify each frame; the mean over all of them stands for the video."""
        total = np.zeros(len(self._predictor.class_names))

        def draw(rgb: Pixels, index: int) -> Pixels:
            del index
            row = self._predictor.judge([self._predictor.prepare(rgb)])[0]
            require_finite(row, f"predictions for {job.name}")
            total[:] += row
            # all frames have one size
            rows, shown = self.results.rows, self.results.shown(row)
            return annotate(rgb, shown, rows=rows) if job.targets else rgb

        frames, problem = draw_video(job, draw)
        if not frames:
            entry["error"] = problem or "it has no frames"
            return problem
        more = {"error": problem} if problem else {}
        self._note(entry, (total / frames).astype(np.float32), frames=frames, **more)
        return problem
