"""The work of a detector's demo: pictures and videos in, drawings and COCO's format out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eva_data.files import make_folder
from eva_data.images import read_rgb, save_image
from eva_data.inputs import Job
from eva_report.demos.found import BEST_ASKED, FoundObjects
from eva_report.demos.running import do_jobs
from eva_report.detection.predictions import writing_predictions
from eva_report.drawing.objects import DrawnObject, draw_objects
from eva_runs.commands import say

PREDICTIONS = "predictions.json"
Pixels = NDArray[np.uint8]


class Detections(NamedTuple):
    """What a detector found in a picture.

    Attributes:
        objects: Objects in COCO's format for results, with the index of the class as
            `category_id`, and masks as compressed run lengths.
        best: Function that returns the best score below the threshold; None where nothing has any.
    """

    objects: list[dict[str, Any]]
    best: Callable[[], float | None]


def detect_files(
    detect: Callable[[Pixels], Detections],
    jobs: Sequence[Job],
    output: Path,
    *,
    categories: Mapping[int, str],
    threshold: float,
) -> list[str]:
    """Detect in files, draw, write `predictions.json`, and say what was found.

    Args:
        detect: Detector of a picture (H, W, 3) in RGB; its ValueError is about the picture.
        jobs: Jobs of a plan.
        output: Folder for `predictions.json`.
        categories: Id -> name of each class, in the model's order.
        threshold: Least score of what counts as found.

    Returns:
        A complaint for each file that could not be read, or not to its end.
    """
    names = list(categories.values())
    found = FoundObjects(threshold)

    def do(job: Job) -> str | None:
        work = _video if job.is_video or job.is_camera else _picture
        try:
            return work(job)
        except ValueError as error:
            text = str(error)
            return text if str(job.source) in text else f"{job.source}: {text}"

    def _picture(job: Job) -> str | None:
        rgb = read_rgb(job.source, upright=True)
        objects, best = detect(rgb)
        drawn = draw_objects(rgb, [as_drawn(one, names) for one in objects])
        _add(rgb, objects, job.name)
        save_image(Image.fromarray(drawn), job.targets[0])
        score = best() if not objects and found.wants_best else None
        found.add(job.name, [names[one["category_id"]] for one in objects], best=score)
        return None

    def _video(job: Job) -> str | None:
        from eva_report.demos.videos import draw_video

        classes: list[str] = []
        scores: list[float | None] = []

        def draw(rgb: Pixels, index: int) -> Pixels:
            objects, best = detect(rgb)
            _add(rgb, objects, job.name, frame=index)
            classes.extend(names[one["category_id"]] for one in objects)
            if not classes and index < BEST_ASKED and found.wants_best:
                scores.append(best())
            return draw_objects(rgb, [as_drawn(one, names) for one in objects])

        frames, problem = draw_video(job, draw)
        best = max((score for score in scores if score is not None), default=None)
        if frames:
            found.add(job.name, classes, best=None if classes else best, frames=frames)
        return problem

    def _add(rgb: Pixels, objects: list[dict[str, Any]], name: str, **more: Any) -> None:
        height, width = rgb.shape[:2]
        predictions.add(objects, file_name=name, height=height, width=width, **more)

    make_folder(output)
    with writing_predictions(output / PREDICTIONS, categories) as predictions:
        problems = do_jobs(jobs, do, title="detecting")
    for line in [*found.lines(), f"output   {output} (pictures, videos and {PREDICTIONS})"]:
        say(line)
    return problems


def as_drawn(one: Mapping[str, Any], names: Sequence[str]) -> DrawnObject:
    """Make an object to draw of one in COCO's format.

    Args:
        one: The object, with the index of its class as `category_id`.
        names: Name of each class.
    """
    x, y, width, height = one["bbox"]
    label = one["category_id"]
    box = (x, y, x + width, y + height)
    return DrawnObject(box, names[label], label, one["score"], one.get("segmentation"))
