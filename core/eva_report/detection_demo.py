"""Demo of a detector: images and videos in, annotated ones and predictions in COCO format out."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pycocotools.mask as mask_api
from PIL import Image

from eva_data.files import make_folder, replacing
from eva_data.images import read_rgb, save_image
from eva_data.inputs import Job
from eva_report.demos import BEST_ASKED, FoundObjects, do_jobs, draw_video
from eva_report.drawing import DrawnObject, Pixels, draw_objects
from eva_runs.commands import say

PREDICTIONS = "predictions.json"


class PredictionsFile:
    """A COCO file of images, categories and predictions.

    It holds what an annotation file holds, and a score for each object, so `pycocotools.COCO`
    reads it. `writing_predictions` opens one.

    Args:
        stream: The open file.
        categories: Id -> name, in the model's order.
    """

    def __init__(self, stream: TextIO, categories: Mapping[int, str]) -> None:
        self._stream = stream
        self._categories = categories
        self._ids = list(categories)
        self._images: list[dict[str, Any]] = []
        self._count = 0
        stream.write('{"annotations": [')

    def add(
        self,
        detections: Iterable[Mapping[str, Any]],
        *,
        file_name: str,
        height: int,
        width: int,
        **more: Any,
    ) -> None:
        """Write the predictions of one image.

        Args:
            detections: Each with `category_id`, the index of its class, `bbox` (x, y, width,
                height), `score`, and `segmentation` as a compressed code where there is a mask.
            file_name: Name of the image.
            height: Height of the image in px.
            width: Width of the image in px.
            **more: Further fields of the image's entry, such as the number of a frame.
        """
        image_id = len(self._images) + 1
        entry = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        self._images.append(entry | more)
        for found in detections:
            mask, box = found.get("segmentation"), found["bbox"]
            area = float(mask_api.area(mask)) if mask else box[2] * box[3]
            category = self._ids[found["category_id"]]
            self._stream.write(",\n" if self._count else "\n")
            self._count += 1
            one = {"id": self._count, "image_id": image_id, **found, "category_id": category}
            json.dump({**one, "area": area, "iscrowd": 0}, self._stream)

    def finish(self) -> None:
        """Write what follows the predictions."""
        categories = [{"id": key, "name": name} for key, name in self._categories.items()]
        self._stream.write('\n],\n"images": ' + json.dumps(self._images))
        self._stream.write(',\n"categories": ' + json.dumps(categories) + "}\n")


@contextlib.contextmanager
def writing_predictions(file: Path, categories: Mapping[int, str]) -> Iterator[PredictionsFile]:
    """Write predictions to a file that appears under its name at the end.

    Args:
        file: The file to write.
        categories: Id -> name, in the model's order.

    Yields:
        The file to add predictions to.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    with replacing(file) as part, part.open("w", encoding="utf-8") as stream:
        predictions = PredictionsFile(stream, categories)
        yield predictions
        predictions.finish()


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
