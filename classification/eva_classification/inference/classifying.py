"""Jobs of the demo: pictures in batches, frames of videos one by one; drawn and written."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eva_classification.inference.predictions_file import PredictionsFiles, writing_predictions
from eva_classification.inference.predictor import Predictor, require_finite
from eva_data.files import make_folder
from eva_data.images import read_rgb, save_image
from eva_data.inputs import Job
from eva_report.demos import FoundClasses, Prediction, do_jobs
from eva_report.sheets import CLASSES_SHOWN, annotate

_MOST_WAITING = 64_000_000  # pixels of pictures that wait for a batch
Pixels = NDArray[np.uint8]


def run(
    predictor: Predictor,
    jobs: Sequence[Job],
    output: Path,
    *,
    top: int = 5,
    least: float = 0.0,
    settings: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Do the jobs, with a progress bar.

    Args:
        predictor: The classifier.
        jobs: Jobs of `eva_classification.inference.demo.plan`.
        output: Folder for the predictions.
        top: Classes of a file that are written.
        least: Least probability of a class that is shown, and of what counts as found.
        settings: What predictions.json says of them.
        say: Function that is given the lines on what was found.

    Returns:
        A complaint for each file that could not be read, or not to its end.
    """
    make_folder(output)
    top = min(top, len(predictor.class_names))
    found = FoundClasses(least)
    with writing_predictions(output, settings or {}, top=top) as files:
        work = _Work(predictor, files, found, top=top, least=least)
        problems = do_jobs(jobs, work, title="classifying")
        work.finish()
    for line in found.lines():
        say(line)
    return problems + work.problems


class _Waiting(NamedTuple):
    """A picture that waits for its batch, or why it cannot be read."""

    job: Job
    rgb: Pixels | None = None
    prepared: Tensor | None = None
    problem: str = ""


class _Work:
    """Takes jobs; `finish` does those that wait.

    Attributes:
        problems: A complaint for each picture that was read and not classified.
    """

    def __init__(
        self,
        predictor: Predictor,
        files: PredictionsFiles,
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
        if len(self._waiting) >= self._predictor.batch_size or pixels > _MOST_WAITING:
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
                self._picture(one.job, one.rgb, self._predictor.top(row, self._top))
            except (ValueError, FloatingPointError) as error:
                self.problems.append(_sentence(one.job, error))
                self._files.add_unreadable(one.job.name, self.problems[-1])

    def _picture(self, job: Job, rgb: Pixels, predictions: list[Prediction]) -> None:
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
        from eva_report.demos import draw_video

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
