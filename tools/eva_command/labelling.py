"""What `eva label` does: predictions of a model, thresholds, the dataset, images to look at."""

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eva_backbone import VisionTransformer
from eva_backbone.checkpoints.registry import resolve_source
from eva_command.data_forms import map_folders
from eva_command.label import NEXT, load_model
from eva_command.recipes import digest_of
from eva_data.classes import list_names
from eva_data.detection.request import DataRequest
from eva_data.detection.resolve import resolve
from eva_data.files import load_object, printable
from eva_data.images import open_image, save_image
from eva_data.inputs import Job, JobPlan
from eva_data.label_files import is_seen, render_template
from eva_data.label_maps import (
    IGNORED as NO_CLASS,
    LabelTable,
    check_pairs,
    read_class_file,
    read_pair,
)
from eva_data.saving import link_or_copy, replace_folder, write_text
from eva_data.writing import is_object, regions_of, writing_dataset
from eva_report.content import Example, Gallery, Report, Table, TitledImage
from eva_report.demos import log_to_terminal, run_jobs
from eva_report.detection_demo import as_drawn
from eva_report.drawing import draw_objects, label_image, overlay
from eva_report.matching import IGNORED, boxes_of, match_image
from eva_report.page import try_report
from eva_report.terminal import counted
from eva_runs import record
from eva_runs.commands import Result, echo
from eva_runs.errors import print_error

_BYTE = 256  # values of a stored probability
Floats = NDArray[np.float64]
Records = Mapping[Job, dict[str, Any]]  # name, size (H, W), feature, and objects or doubt
_NEXT = 100  # images to label next
_LEAST = 0.05  # score of an object that is kept at all
_SHOWN, _SIDE = 100, 640  # images of the page, and their longest side in px
_DOUBT = """Doubt is the sum over the objects, from 0, of a score of 0 or 1, to 1, at the threshold
of the class; of label maps the mean of 1 - (best probability - second) over the pixels."""


class Labeller:
    """A detector or segmentor, and the folder of what it predicted.

    `thresholds` (K, 3) are the least score of each class, and precision and recall from it on, NaN
    where they are not known; `problems` are about images that cannot be read.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._least = min(_LEAST, options.score_threshold)
        settings = {
            "weights": options.weights,
            "device": options.device,
            "score_threshold": self._least,
        }
        self.model, self.categories = load_model(options.task, options.config, **settings)
        self.names = [*self.categories.values()]
        self.thresholds = np.full((len(self.names), 3), (options.score_threshold, np.nan, np.nan))
        self.problems: list[str] = []
        self._tokens: list[torch.Tensor] = []  # (B, N, C) of the last block
        vit = next(
            module for module in self.model.model.modules() if isinstance(module, VisionTransformer)
        )
        vit.blocks[-1].register_forward_hook(lambda *values: self._tokens.append(values[-1]))
        state = resolve_source(options.weights).stat()
        recipe = digest_of(options.config)
        identity = options.weights, state.st_size, state.st_mtime_ns, recipe, self._least
        self._folder = options.output / "predictions" / _digest(identity)

    def predict(self, jobs: Iterable[Job], title: str) -> Records:
        """Predict for images that have no file yet; return all predictions, by image."""
        files = {job: self._file(job) for job in jobs}

        def do(job: Job) -> None:
            if not files[job].exists():
                write_text(files[job], json.dumps(self._describe(job)))

        self.problems += run_jobs([*files], do, title=title)
        return {job: _read(file, job) for job, file in files.items() if file.exists()}

    def _file(self, job: Job) -> Path:
        """Name the file of an image: another one when that changes."""
        state = job.source.stat()
        identity = str(job.source.absolute()), state.st_size, state.st_mtime_ns
        return self._folder / f"{_digest(identity)}.json"

    def _describe(self, job: Job) -> dict[str, Any]:
        """Predict for an image; a segmentor's classes and probabilities go to an LA image."""
        rgb = self.model.read_image(job.source)
        prediction: dict[str, Any] = {"size": rgb.shape[:2]}
        self._tokens.clear()
        if hasattr(self.model, "in_coco_format"):
            prediction["objects"] = self.model.in_coco_format(rgb)
        else:
            classes, (best, second) = self.model.probable(rgb)
            prediction["doubt"] = 1 - float((best - second).mean())
            classes_and_scores = np.stack([classes, (best * 255).round().byte().numpy()], -1)
            save_image(
                Image.fromarray(classes_and_scores, "LA"), self._file(job).with_suffix(".png")
            )
        tokens = torch.cat([tokens.flatten(0, -2) for tokens in self._tokens]).float()
        return prediction | {"feature": [round(value, 4) for value in tokens.mean(0).tolist()]}

    def pixels(self, job: Job) -> NDArray[np.uint8]:
        """Return the (H, W) classes of a segmentor, K where a probability is too low."""
        classes, scores = self._stored(job)
        passing = scores / 255 >= self.thresholds[classes, 0]
        return np.where(passing, classes, len(self.names)).astype(np.uint8)

    def _stored(self, job: Job) -> NDArray[np.uint8]:
        """Read classes and probabilities, 0 to 255: (2, H, W)."""
        file = self._file(job).with_suffix(".png")
        with open_image(file, f"the prediction {file}", decode=True) as image:
            return np.moveaxis(np.asarray(image), -1, 0)

    def choose_thresholds(self, data: Path, target: float) -> None:
        """Predict for labelled images, judge what is found, and choose."""
        judge = self._judge_boxes if hasattr(self.model, "in_coco_format") else self._judge_pixels
        judged, expected = judge(data)
        for number, row in enumerate(self.thresholds):
            in_class = judged[0] == number
            if in_class.any():
                _, right, scores, counts = judged[:, in_class]
                row[:] = lowest_score(right, scores, counts, expected[number], target)

    def _numbers(self, names: Sequence[str], data: Path) -> list[int]:
        unknown = {*names} - {*self.names}
        if unknown:
            raise ValueError(f"{data} has classes that the model does not know: {sorted(unknown)}")
        return [self.names.index(name) for name in names]

    def _judge_boxes(self, data: Path) -> tuple[Floats, Floats]:
        """Judge as the reports of detectors do: (4, n) classes, right or not, scores, numbers."""
        request = DataRequest(paths=(data,), parts=("val",), boxes_only=True)
        val = resolve(request).parts["val"]
        names = self._numbers([*val.categories.values()], data)
        numbers = dict(zip(val.categories, names, strict=True))
        rows: dict[int, list[Sequence[float]]] = defaultdict(list)
        for annotation in val.objects:
            row = (
                *annotation["bbox"],
                numbers[annotation["category_id"]],
                1,
                annotation["iscrowd"],
            )
            rows[annotation["image_id"]].append(row)
        jobs = {
            Job(Path(val.folder, image["file_name"]), "", ()): k for k, image in val.images.items()
        }
        judged: list[Floats] = [np.zeros((4, 0))]
        objects = np.zeros(len(self.names))
        for job, prediction in self.predict(jobs, "validating").items():
            predicted_rows = [
                (*o["bbox"], o["category_id"], o["score"], 0) for o in prediction["objects"]
            ]
            matches = match_image(boxes_of(rows[jobs[job]]), boxes_of(predicted_rows))
            labels, scores = matches.predictions.labels, matches.predictions.scores
            values = np.array([labels, matches.right, scores, np.ones(len(scores))], np.float64)
            judged.append(values[:, matches.matched != IGNORED])
            objects += np.bincount(
                matches.truth.labels[~matches.truth.crowd], minlength=len(objects)
            )
        return np.concatenate(judged, axis=1), objects

    def _judge_pixels(self, data: Path) -> tuple[Floats, Floats]:
        """Judge the pixels that have a class: (4, n) classes, right ones, scores, all of these."""
        folders = {name: Path(value) for name, value in map_folders(data).items()}
        part = "val" if "--val-maps" in folders else "train"
        if "--classes" not in folders:
            raise ValueError(f"--val {data} is no folder with images/, maps/ and classes.toml")
        classes = read_class_file(folders["--classes"])
        pairs = check_pairs(folders[f"--{part}-images"], folders[f"--{part}-maps"], classes)
        table, num_classes = LabelTable(classes.labels, classes.ignore), len(self.names)
        numbers = np.full(NO_CLASS + 1, num_classes)
        numbers[: len(classes.names)] = self._numbers(classes.names, data)
        counts, pixels_per_class = np.zeros((2, num_classes * _BYTE)), np.zeros(num_classes)
        jobs = {Job(pair.image, "", ()): pair for pair in pairs}
        for job in self.predict(jobs, "validating"):
            truth = numbers[read_pair(jobs[job], table)]
            predicted, scores = self._stored(job)[:, truth < num_classes].astype(int)
            truth = truth[truth < num_classes]
            for row, weights in zip(counts, (predicted == truth, None), strict=True):
                row += np.bincount(predicted * _BYTE + scores, weights, len(row))
            pixels_per_class += np.bincount(truth, minlength=num_classes)
        used = np.flatnonzero(counts[1])
        return np.stack(
            [used // _BYTE, counts[0, used], used % _BYTE / 255, counts[1, used]]
        ), pixels_per_class


def _digest(identity: tuple[Any, ...]) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:24]


def _read(file: Path, job: Job) -> dict[str, Any]:
    try:
        prediction = load_object(file)
        feature = np.array(prediction["feature"], np.float32)
        objects = [
            (detection["score"], *detection["bbox"]) for detection in prediction.get("objects", ())
        ]
        if not np.isfinite([*prediction["size"], *feature, *chain(*objects)]).all():
            raise ValueError("it holds other than finite numbers")
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, and run it again") from error
    name = job.name.replace("/", "__")
    return {**prediction, "name": name, "source": job.source, "feature": feature}


def lowest_score(
    right: Floats, scores: Floats, predictions: Floats, objects: float, target: float
) -> tuple[float, float, float]:
    """Find the lowest score from which on a share `target` of predictions is right.

    Of each score (n,) there are some predictions, and right ones among them.

    Returns:
        It, or that of the best precision where the target is not reached, and the precision and the
        recall from it on; NaN without objects.
    """
    values, indexes = np.unique(-scores, return_inverse=True)  # the highest first
    hits, total = (np.bincount(indexes, weight).cumsum() for weight in (right, predictions))
    enough = np.flatnonzero(hits >= target * total)
    last = enough[-1] if len(enough) else (hits / total).argmax()
    recall = hits[last] / objects if objects else np.nan
    return -float(values[last]), float(hits[last] / total[last]), float(recall)


def choose_next(features: NDArray[np.floating[Any]], doubts: Floats, limit: int) -> list[int]:
    """Choose images to label next: in doubt, and unlike those that are chosen already.

    Greedy k-centre selection of Sener & Savarese, https://arxiv.org/abs/1708.00489, whose distance,
    1 - cosine of features (N, C) around their mean, is multiplied by the doubt (N,).

    Returns:
        Up to `most` indexes; the first image is that in the greatest doubt.
    """
    unit = features - features.mean(0)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
    distance, order = np.full(len(unit), 2.0), list[int]()
    while len(order) < min(limit, len(unit)):
        gain = (doubts + 1e-6) * distance
        gain[order] = -1
        order.append(int(gain.argmax()))
        distance = np.minimum(distance, np.maximum(1 - unit @ unit[order[-1]], 0))
    return order


def label(options: argparse.Namespace) -> int:
    """Label the images of a plan; return the exit code."""
    plan: JobPlan = options.plan
    log_to_terminal()
    labeller = Labeller(options)
    if options.val is not None:
        labeller.choose_thresholds(options.val.absolute(), options.target_precision)
    records = labeller.predict(plan.jobs, "labelling")
    problems = [*plan.problems, *labeller.problems]
    if not records:
        raise ValueError(f"no image can be read: {problems[0]}")
    write = _write_maps if options.form == "maps" else _write_objects
    counts = write(options, labeller, records)
    result = _review(options, labeller, records, counts)
    for problem in problems:
        print_error(printable(problem))
    return Result(result, int(bool(problems)))


def _write_objects(
    options: argparse.Namespace, labeller: Labeller, records: Records
) -> NDArray[np.int64]:
    """Write objects, or the regions of a segmentor; return the number of those of each class."""
    counts = np.zeros(len(labeller.names), np.int64)
    target, is_segmentor = (options.output, options.form), options.task == "segmentation"
    things, points = (getattr(labeller.model, name, None) for name in ("things", "keypoints"))
    dataset = writing_dataset(
        *target, labeller.categories, regions=is_segmentor, things=things, keypoints=points
    )
    with dataset as add:
        for job, prediction in records.items():
            if "objects" in prediction:
                _choose_objects(prediction, labeller)
                objects = prediction["objects"]
            else:
                regions = regions_of(labeller.pixels(job), len(labeller.names))
                objects = [o for o in regions if is_object(labeller.names[o["category_id"]])]
            for detection in objects:
                detection.pop("segmentation" if options.boxes_only else "", None)
                counts[detection["category_id"]] += 1
            add({**prediction, "objects": objects})
    return counts


def _choose_objects(prediction: dict[str, Any], labeller: Labeller) -> None:
    """Keep the objects of a record that are labelled, and note the doubt about all of them."""
    detections, prediction["objects"], prediction["doubt"] = prediction["objects"], [], 0.0
    for detection in filter(is_seen, detections):
        score, threshold = detection["score"], labeller.thresholds[detection["category_id"], 0]
        prediction["doubt"] += min(
            score / max(threshold, 1e-9), (1 - score) / max(1 - threshold, 1e-9)
        )
        if score >= threshold:
            prediction["objects"].append(detection)


def _write_maps(
    options: argparse.Namespace, labeller: Labeller, records: Records
) -> NDArray[np.int64]:
    """Write images, label maps and their classes; return the number of pixels of each class."""
    labels, colors = labeller.model.labels, labeller.model.colors
    ignore = max({*range(256)} - {*labels})
    counts = np.zeros(len(labels) + 1, np.int64)
    with replace_folder(options.output / "maps") as folder:
        for job, prediction in records.items():
            label_map = labeller.pixels(job)
            counts += np.bincount(label_map.ravel(), minlength=len(counts))
            target = (folder / "maps" / prediction["name"]).with_suffix(".png")
            if target.exists():
                raise ValueError(f"two images would have {target.name}: give them other names")
            link_or_copy(job.source, folder / "images" / prediction["name"])
            save_image(label_image(label_map, [*labels, ignore], [*colors, (0, 0, 0)]), target)
        classes = zip(labeller.names, labels, colors, strict=True)
        content = render_template("classes.toml", classes=classes, ignore=ignore)
        write_text(folder / "classes.toml", content)
    return counts[:-1]


def _review(
    options: argparse.Namespace, labeller: Labeller, records: Records, counts: NDArray[np.int64]
) -> dict[str, Any]:
    """Write the page and the list of images to label next, and return what was labelled."""
    jobs, doubts = [*records], np.array([prediction["doubt"] for prediction in records.values()])
    features = np.stack([prediction["feature"] for prediction in records.values()])
    following = choose_next(features, doubts, _NEXT)
    lines = "".join(f"{jobs[index].source.absolute()}\n" for index in following)
    write_text(options.output / NEXT, printable(lines))
    columns = labeller.names, labeller.thresholds.tolist(), counts.tolist()
    classes = [[name, *row, count] for name, row, count in zip(*columns, strict=True)]
    message, target = "", options.target_precision
    if target is not None:
        for name, score, precision, recall, _ in classes:
            echo(f"{name}: from {score:.3f}, precision {precision:.2f}, recall {recall:.2f}")
        short = [name for name, _, precision, *_ in classes if not precision >= target]
        message = f"Lowest scores with a precision of {target:g} in {options.val}."
        message += f" Not reached at any score: {list_names(short)}." if short else ""
        echo(message)
    unit = "pixels" if options.form == "maps" else "objects"
    total = f"{counts.sum():,} {unit} are labelled in {counted(len(jobs), 'image')}"
    heads = ["class", "least score", "precision", "recall", f"labelled {unit}"]
    device = str(next(labeller.model.model.parameters()).device)

    def report() -> Report:
        order = np.argsort(-doubts, kind="stable")[:_SHOWN].tolist()
        rank = {index: f", label next: {number}" for number, index in enumerate(following, start=1)}
        examples = [
            _example(labeller, records, jobs[index], rank.get(index, "")) for index in order
        ]
        return Report(
            title=f"Labels by {options.weights}",
            summary=f"{total}, for {options.form}.",
            facts=record.run_facts(options.output, "evaluation", seed=None, device=device),
            sections=[
                Table(title="Classes", heads=heads, rows=classes, text=message, digits=2),
                Gallery(title="Images in doubt", examples=examples, text=_DOUBT),
            ],
        )

    page = try_report(options.output, report)
    files = [f"{options.form}/", *([page.name] if page else []), NEXT]
    echo(f"{total}; {options.output} has {list_names(files)}")
    return {"summary": total, "output": options.output, "files": files}


def _example(labeller: Labeller, records: Records, job: Job, after: str) -> Example:
    """Draw the labels of an image; its caption ends with `after`."""
    rgb = labeller.model.draw_image(labeller.model.read_image(job.source))
    prediction = records[job]
    if "objects" in prediction:
        points = getattr(labeller.model, "keypoints", None)
        drawn = [as_drawn(found, labeller.names, points) for found in prediction["objects"]]
        drawings = {"labels": draw_objects(rgb, drawn, longest=_SIDE)}
    else:
        painted = overlay(rgb, labeller.pixels(job), labeller.model.colors)
        drawings = {"image": rgb, "labels": painted}
    images = [
        TitledImage(title=title, image=Image.fromarray(drawings[title])) for title in drawings
    ]
    for image in images:
        image.image.thumbnail((_SIDE, _SIDE))
    return Example(caption=f"{job.name}, doubt {prediction['doubt']:.2f}{after}", images=images)
