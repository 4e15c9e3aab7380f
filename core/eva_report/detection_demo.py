"""Demo of a detector: images and videos in, annotated ones and predictions in COCO format out."""

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from eva_data.bands import draw_pixels, read_pixels
from eva_data.coco_writing import writing_predictions
from eva_data.detection.keypoints import KeypointNames
from eva_data.images import save_image
from eva_data.inputs import Job, JobPlan
from eva_data.saving import write_text
from eva_data.writing import writing_dataset
from eva_report.demos import (
    DetectionSummary,
    draw_video,
    listed_counts,
    run_jobs,
)
from eva_report.drawing import DrawnObject, Pixels, draw_objects
from eva_report.terminal import counted
from eva_runs.commands import echo

PREDICTIONS = "predictions.json"


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

        boxes = np.array([detection["bbox"] for detection in objects], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([detection["score"] for detection in objects])
        places = np.arange(len(objects))
        for _ in range(2 if frame == 0 else 1):  # as in the paper, the first frame needs no second
            detections = Supervised(boxes, confidence=scores, data={"at": places})
            tracked = self._tracker.update(detections)
        for at, number in zip(tracked.data.get("at", ()), tracked.tracker_id, strict=False):
            if number >= 0:
                detection = objects[at]
                detection["track_id"] = key = int(number) + 1
                numbers = (f"{value:.2f}" for value in (*detection["bbox"], detection["score"]))
                self.lines.append(f"{frame + 1},{key},{','.join(numbers)},-1,-1,-1\n")
                self.classes[key][detection["category_id"]] += 1


def detect_files(args: argparse.Namespace, predictor: Any, planned: JobPlan) -> list[str]:
    """Detect in files, draw, write `predictions.json` to the output, and say what was found.

    `predictor` has `categories`, ids and names in the model's order, `score_threshold`, and
    `in_coco_format`, which gets an image (H, W, 3) in RGB, whose ValueError is about it, and which
    returns objects in COCO's format for results, with indexes of classes as `category_id`. `args`
    are those of `eva_report.demos.add_detector_options`: objects of videos that are tracked get a
    `track_id`, also in a text file (MOT) beside each.

    Returns:
        A complaint for each file that could not be read, or not to its end.
    """
    output, form, categories = args.output, args.form, dict(predictor.categories)
    names, summary = [*categories.values()], DetectionSummary(predictor.score_threshold)
    points, things, bands = (
        getattr(predictor, name, None) for name in ("keypoints", "things", "bands")
    )

    def do(job: Job) -> str | None:
        classes: list[str] = []
        tracks = _Tracks(predictor.score_threshold) if args.track else None

        def draw(pixels: Any, index: int = 0, **entry: int) -> Pixels:
            objects = predictor.in_coco_format(pixels)
            rgb = draw_pixels(pixels, bands)
            if tracks is not None:
                tracks.add(objects, index)
            image = {"name": job.name, "size": rgb.shape[:2], "objects": objects}
            add(image, **entry)
            if not entry:
                add_labels({**image, "source": job.source})
            classes.extend(names[detection["category_id"]] for detection in objects)
            return draw_objects(rgb, [as_drawn(found, names, points) for found in objects])

        frames = problem = None
        if job.is_video or job.is_camera:
            frames, problem = draw_video(job, lambda rgb, at: draw(rgb, at, frame=at))
        else:
            drawn = draw(read_pixels(job.source, bands))
            save_image(Image.fromarray(drawn), job.targets[0])
        if frames != 0:
            summary.add(job.name, classes, frames=frames, details=details(tracks))
            if tracks:
                write_text(job.targets[0].with_suffix(".txt"), "".join(tracks.lines))
        return problem

    def details(tracks: _Tracks | None) -> list[str]:
        most = [
            counts.most_common(1)[0][0] for counts in (tracks.classes if tracks else {}).values()
        ]
        counts = Counter(names[label] for label in most)
        return [f"  {counted(len(most), 'track')}: {listed_counts(counts)}"] if most else []

    with (
        writing_dataset(output, form, categories, keypoints=points, things=things) as add_labels,
        writing_predictions(output / PREDICTIONS, categories, keypoints=points) as add,
    ):
        problems = run_jobs(planned.jobs, do, title="detecting")
    also = f"{form}/" if form else "videos"
    for line in [*summary.lines(), f"output   {output} (images, {also} and {PREDICTIONS})"]:
        echo(line)
    return problems


def as_drawn(
    entry: Mapping[str, Any], names: Sequence[str], points: KeypointNames | None = None
) -> DrawnObject:
    """Make an object to draw of one in COCO's format, whose `category_id` is its class's index."""
    x, y, width, height = entry["bbox"]
    label = entry["category_id"]
    box = (x, y, x + width, y + height)
    name = f"{names[label]} #{entry['track_id']}" if "track_id" in entry else names[label]
    skeleton = points.skeleton if points else ()
    mask, values = entry.get("segmentation"), entry.get("keypoints") or ()
    boxed = bool(entry.get("isthing", 1))
    return DrawnObject(box, name, label, entry["score"], mask, values, skeleton, boxed)
