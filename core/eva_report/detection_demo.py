"""Demo of a detector: images and videos in, annotated ones and predictions in COCO format out."""

import contextlib
import itertools
import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_api
from PIL import Image

from eva_data.files import hand_over, replacing, write_text
from eva_data.images import read_rgb, save_image
from eva_data.inputs import Job
from eva_report.demos import (
    BEST_ASKED,
    Found,
    Prediction,
    do_jobs,
    draw_video,
    listed_counts,
    named_error,
)
from eva_report.drawing import DrawnObject, Pixels, draw_objects
from eva_report.terminal import counted
from eva_runs.commands import say

PREDICTIONS = "predictions.json"


@contextlib.contextmanager
def writing_predictions(file: Path, categories: Mapping[int, str]) -> Iterator[Callable[..., None]]:
    """Write predictions to a COCO file, which appears under its name at the end.

    `pycocotools.COCO` reads it as an annotation file, whose objects have a score. `categories` are
    ids and names in the model's order.

    Yields:
        `add(detections, size=(height, width), **entry)`, which writes the predictions of an image:
        each with `category_id`, the index of its class, `bbox` (x, y, width, height), `score`, and
        `segmentation` as a compressed code where there is a mask; `entry` are further fields of
        the image's entry, such as `file_name`.

    Raises:
        UnwritableError: If the disk is full or the folder read-only, for example.
    """
    ids, count, number_of = list(categories), itertools.count(1), itertools.count(1)

    def add(detections: Iterable[Mapping[str, Any]], *, size: Sequence[int], **entry: Any) -> None:
        image_id = next(number_of)
        about = {"id": image_id, **entry, "width": size[1], "height": size[0]}
        images.write((", " if image_id > 1 else "") + json.dumps(about))
        for found in detections:
            mask, box = found.get("segmentation"), found["bbox"]
            area = float(mask_api.area(mask)) if mask else box[2] * box[3]
            number = next(count)
            one = {"id": number, "image_id": image_id, **found, "area": area, "iscrowd": 0}
            one["category_id"] = ids[found["category_id"]]
            stream.write(",\n" if number > 1 else "\n")
            json.dump(one, stream)

    with (
        replacing(file) as part,
        part.open("w", encoding="utf-8") as stream,
        tempfile.TemporaryFile("w+", encoding="utf-8") as images,  # of any number
    ):
        stream.write('{"annotations": [')
        yield add
        entries = [{"id": key, "name": name} for key, name in categories.items()]
        stream.write('\n],\n"images": [')
        images.seek(0)
        shutil.copyfileobj(images, stream)
        stream.write('],\n"categories": ' + json.dumps(entries) + "}\n")


class Detections(NamedTuple):
    """What a detector found in an image."""

    # in COCO's format for results: `category_id` is the index of the class, masks are compressed
    objects: list[dict[str, Any]]
    best: Callable[[], float | None]  # gives the best score below the threshold, if there is one


class _Tracks:
    """Tracks of the objects of a video, by ByteTrack: `lines` of a MOT file, their `classes`."""

    def __init__(self, threshold: float) -> None:
        from trackers import ByteTrackTracker

        least = dict.fromkeys(("track_activation_threshold", "high_conf_det_threshold"), threshold)
        self._tracker: Any = ByteTrackTracker(minimum_consecutive_frames=1, **least)  # type: ignore[arg-type]
        self.lines, self.classes = list[str](), defaultdict[int, Counter[int]](Counter)

    def add(self, objects: Sequence[dict[str, Any]], frame: int) -> None:
        """Give the objects of a frame their `track_id`, but for those seen for the first time."""
        from supervision import Detections as Supervised

        boxes = np.array([one["bbox"] for one in objects], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores, places = np.array([one["score"] for one in objects]), np.arange(len(objects))
        for _ in range(2 if frame == 0 else 1):  # as in the paper, the first frame needs no second
            given = Supervised(boxes, confidence=scores, data={"at": places})
            found = self._tracker.update(given)
        for at, number in zip(found.data.get("at", ()), found.tracker_id, strict=False):
            if number >= 0:
                one = objects[at]
                one["track_id"] = key = int(number) + 1
                numbers = (f"{value:.2f}" for value in (*one["bbox"], one["score"]))
                self.lines.append(f"{frame + 1},{key},{','.join(numbers)},-1,-1,-1\n")
                self.classes[key][one["category_id"]] += 1


def detect_files(
    detect: Callable[[Pixels], Detections],
    jobs: Sequence[Job],
    output: Path,
    *,
    categories: Mapping[int, str],
    threshold: float,
    track: bool = False,
) -> list[str]:
    """Detect in files, draw, write `predictions.json` to the output, and say what was found.

    A ValueError of `detect`, which gets an image (H, W, 3) in RGB, is about the image; `categories`
    are ids and names in the model's order, `threshold` the least score of what counts as found.
    `track` gives the objects of videos a `track_id`, also in a text file (MOT) beside each.

    Returns:
        A complaint for each file that could not be read, or not to its end.
    """
    names = list(categories.values())
    found = Found(threshold)

    def do(job: Job) -> str | None:
        classes: list[str] = []
        scores: list[float] = []
        tracks = _Tracks(threshold) if track else None

        def draw(rgb: Pixels, index: int = 0, **entry: int) -> Pixels:
            objects, best = detect(rgb)
            if tracks is not None:
                tracks.add(objects, index)
            add(objects, size=rgb.shape[:2], file_name=job.name, **entry)
            classes.extend(names[one["category_id"]] for one in objects)
            if not classes and index < BEST_ASKED and found.wants_best:
                scores.extend(score for score in [best()] if score is not None)
            return draw_objects(rgb, [as_drawn(one, names) for one in objects])

        frames = problem = None
        try:
            if job.is_video or job.is_camera:
                frames, problem = draw_video(job, lambda rgb, at: draw(rgb, at, frame=at))
            else:
                drawn = draw(read_rgb(job.source, upright=True))
                save_image(Image.fromarray(drawn), job.targets[0])
        except ValueError as error:
            return named_error(job, error)
        best = Prediction("", max(scores)) if scores and not classes else None
        if frames != 0:
            found.add(job.name, classes, best=best, frames=frames, details=details(tracks))
            if tracks:
                write_text(job.targets[0].with_suffix(".txt"), "".join(tracks.lines))
        return problem

    def details(tracks: _Tracks | None) -> list[str]:
        most = [one.most_common(1)[0][0] for one in (tracks.classes if tracks else {}).values()]
        counts = Counter(names[label] for label in most)
        return [f"  {counted(len(most), 'track')}: {listed_counts(counts)}"] if most else []

    with writing_predictions(output / PREDICTIONS, categories) as add:
        problems = do_jobs(jobs, do, title="detecting")
    hand_over(output / PREDICTIONS)
    for line in [*found.lines(), f"output   {output} (images, videos and {PREDICTIONS})"]:
        say(line)
    return problems


def as_drawn(one: Mapping[str, Any], names: Sequence[str]) -> DrawnObject:
    """Make an object to draw of one in COCO's format, whose `category_id` is its class's index."""
    x, y, width, height = one["bbox"]
    label = one["category_id"]
    box = (x, y, x + width, y + height)
    name = f"{names[label]} #{one['track_id']}" if "track_id" in one else names[label]
    return DrawnObject(box, name, label, one["score"], one.get("segmentation"))
