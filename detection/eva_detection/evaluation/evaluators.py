"""COCO and LVIS scores through faster-coco-eval, with predictions on disk instead of in memory."""

import contextlib
import itertools
import logging
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from faster_coco_eval import COCO, COCOeval_faster
from tabulate import tabulate  # type: ignore[import-untyped]

from eva_data.detection.coco import CocoDataset, read_coco
from eva_data.detection.scoring import (
    Detection,
    as_lvis,
    cap_per_image,
    class_scores,
    judged,
    read_annotations,
)
from eva_detection.evaluation.predictions import (
    Predictions,
    PredictionWriter,
    cap_per_class,
    write_results,
)

# below detectron2's logger, so that scores also show in detectron2's own training program
logger = logging.getLogger(f"detectron2.{__name__}")

FIXED = "-fixed"
FIXED_DETECTIONS_PER_CLASS = 10_000  # arXiv 2102.01066
TASKS = tuple(kind + end for kind in ("bbox", "segm", "boundary") for end in ("", FIXED))


class CocoEvaluator(DatasetEvaluator):
    """Box, mask and boundary AP by COCO's rules, as detectron2's `COCOEvaluator`.

    Results have AP, AP50, AP75, APs, APm, APl, and AP-NAME for each class.

    Args:
        dataset_name: Registered data set.
        tasks: Any of `bbox`, `segm`, `boundary` (mask AP with the boundary IoU of arXiv
            2103.16562) and the same with `-fixed` (the 10,000 highest scores of each class count,
            however many in an image, arXiv 2102.01066). By default `bbox`, and `segm` if the
            model predicts masks.
        distributed: Score the predictions of all processes together, on the main one.
        output_dir: Folder for predictions and results; in a run on several machines all must
            see it. By default nothing is kept.
        max_dets_per_image: Limit on detections in an image; by default the one of the data
            set's rules. It does not apply to `-fixed` tasks.

    Raises:
        ValueError: If a task is unknown or the limit is below 1.
    """

    predictions_file = "coco_instances_results.json"
    default_max_dets = 100  # of each class
    lvis_style = False
    metrics = {"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75"} | {
        f"AP{size[0]}": f"AP_{size}" for size in ("small", "medium", "large")
    }  # name in the results -> name in faster-coco-eval

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
    ):
        unknown = [task for task in tasks or () if task not in TASKS]
        if unknown:
            raise ValueError(f"unknown tasks {unknown}; there are {', '.join(TASKS)}")
        if max_dets_per_image is not None and max_dets_per_image < 1:
            raise ValueError(
                f"max_dets_per_image is {max_dets_per_image}, must be at least 1; "
                f"for no limit use tasks such as 'bbox{FIXED}'"
            )
        self._name = dataset_name
        self._tasks = tuple(tasks) if tasks else None
        self._distributed = distributed
        self._output_dir = Path(output_dir) if output_dir else None
        self._max_dets = max_dets_per_image or self.default_max_dets
        self._metadata = MetadataCatalog.get(dataset_name)
        self._remove_temporary: Callable[[], Any] = lambda: None
        self._kept_truth: COCO | None = None

    def _dataset_ids(self) -> dict[int, int] | None:
        """Map each class of the model to its category id in the dataset's file; None: the same."""
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        return {label: category for category, label in ids.items()} if ids else None

    def _load_truth(self, file: str) -> COCO:
        return read_annotations(file)

    def _capped(self, predictions: Predictions) -> Iterable[list[Detection]]:
        """Choose the detections that count in tasks with a limit on each image."""
        return predictions  # the limit is on each class, the scorer knows it

    def _judged(self, images: Iterable[list[Detection]], truth: COCO) -> Iterator[Detection]:
        """Choose the detections that the annotations say something about."""
        return itertools.chain.from_iterable(images)

    def reset(self) -> None:
        """Start an evaluation, with no predictions; the same call on all processes."""
        self._remove_temporary()
        self._folder = self._output_dir or self._make_temporary()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file_name = f"predictions_{self._name}"
        self._writer = PredictionWriter(self._folder, self._file_name, rank=comm.get_rank())
        self._ids = self._dataset_ids()

    def _make_temporary(self) -> Path:
        shared = self._distributed and comm.get_world_size() > 1
        name = ""
        if not shared or comm.is_main_process():
            name = tempfile.mkdtemp(prefix="eva_evaluation_")
            self._remove_temporary = weakref.finalize(self, shutil.rmtree, name, ignore_errors=True)
        return Path(comm.all_gather(name)[0] if shared else name)

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Write a batch's predictions to disk.

        Args:
            inputs: What the model got, with `image_id`.
            outputs: What the model returned, with `instances`.

        Raises:
            ValueError: If a predicted class is not one of the data set.
        """
        batch: list[list[Detection]] = []
        masks = False
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            masks = masks or instances.has("pred_masks")
            detections = instances_to_coco_json(instances, image["image_id"])
            for one in detections:
                one["category_id"] = self._dataset_id(one["category_id"])
            batch.append(detections)
        self._writer.append(batch, masks=masks)

    def _dataset_id(self, label: int) -> int:
        if self._ids is None:
            return label
        if label not in self._ids:
            raise ValueError(
                f"the model predicts class {label}, {self._name} has {len(self._ids)} classes: "
                "set the model's num_classes to that"
            )
        return self._ids[label]

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Score everything since `reset`.

        Other processes only wait for each other to finish their predictions, not for the scores.

        Returns:
            Task -> metric -> percent, NaN where the set has no such objects (or nothing was
            found at all); empty on other processes, for sets without annotations, and without
            predictions.
        """
        predictions = self._collect()
        if predictions is None:
            return {}
        with contextlib.closing(predictions):
            results = self._evaluate(predictions)
        if results and self._output_dir:
            write_results(results, self._output_dir / "results.json")
        self._remove_temporary()
        return results

    def _collect(self) -> Predictions | None:
        if not self._distributed:
            return Predictions(self._folder, self._file_name, ranks=[comm.get_rank()])
        predictions = None
        comm.synchronize()  # all have written
        try:
            if comm.is_main_process():
                ranks = range(comm.get_world_size())
                predictions = Predictions(self._folder, self._file_name, ranks=ranks)
        finally:
            comm.synchronize()  # the main one has opened everything: new files may be written
        return predictions

    def _evaluate(self, predictions: Predictions) -> dict[str, dict[str, float]]:
        output = self._output_dir / self.predictions_file if self._output_dir else None
        images, total, masks = predictions.summarize(output)
        if not images:
            logger.warning("%s: no image was processed", self._name)
            return {}
        logger.info("%d detections in %d images of %s", total, images, self._name)
        truth = self._truth()
        if not truth.anns:
            logger.info("%s has no annotations: nothing to score", self._name)
            return {}
        tasks = self._tasks or (("bbox", "segm") if masks else ("bbox",))
        if not masks and any(not task.startswith("bbox") for task in tasks):
            raise ValueError(f"tasks are {', '.join(tasks)}, but the model predicts no masks")
        if not total:
            logger.warning("%s: the model found nothing", self._name)
            return {task: dict.fromkeys(self.metrics, math.nan) for task in tasks}
        return {task: self._score(task, predictions, truth) for task in tasks}

    def labels(self) -> Mapping[str, Any]:
        """Return the annotations that it scores by, in COCO's format, which it keeps."""
        return cast("Mapping[str, Any]", self._truth().dataset)

    def _truth(self) -> COCO:
        """Parse the annotations at the first evaluation, and keep them."""
        if self._kept_truth is None:
            self._kept_truth = self._load_truth(self._annotation_file())
        return self._kept_truth

    def _annotation_file(self) -> str:
        file = self._metadata.get("json_file")
        if file is None:  # registered as a function only
            file = str(self._folder / f"{self._name}_coco_format.json")
            convert_to_coco_json(self._name, file, allow_cached=False)
        return PathManager.get_local_path(file)

    def _score(self, task: str, predictions: Predictions, truth: COCO) -> dict[str, float]:
        kind, limit = task.removesuffix(FIXED), self._max_dets
        images = self._capped(predictions)
        if task.endswith(FIXED):
            limit = FIXED_DETECTIONS_PER_CLASS
            images = cap_per_class(lambda: predictions, limit)
        # the area of an object is its box's if a mask comes with one
        unused = "segmentation" if kind == "bbox" else "bbox"
        detections = list(self._judged(images, truth))
        for one in detections:
            one.pop(unused, None)
        found = truth.loadRes(detections)
        style = dict(lvis_style=self.lvis_style, print_function=logger.debug)
        scorer = COCOeval_faster(truth, found, kind, **style)
        scorer.params.maxDets = [limit]
        scorer.run()
        results = {name: _percent(scorer.stats_as_dict[key]) for name, key in self.metrics.items()}
        logger.info("Evaluation results for %s: \n%s", task, create_small_table(results))
        return results | self._score_classes(task, scorer)

    def _score_classes(self, task: str, scorer: COCOeval_faster) -> dict[str, float]:
        """Compute the AP of each class, where the rules have that."""
        names = self._metadata.get("thing_classes") or ()
        if len(names) <= 1:
            return {}
        found = class_scores(scorer).values()
        if len(names) != len(found):
            raise ValueError(f"{self._name} has {len(names)} names, {len(found)} categories")
        scores = dict(zip(names, map(_percent, found), strict=True))
        logger.info("Per-category %s AP: \n%s", task, _class_table(scores))
        return {f"AP-{name}": score for name, score in scores.items()}


class CustomEvaluator(CocoEvaluator):
    """`CocoEvaluator` of a file that may lack areas, crowd flags or some of the categories.

    Args:
        annotations: File in COCO format.
        categories: Name of each category id; the classes of the model, in order of the ids.
        boxes_only: Leave masks of the file alone, whatever they are.
        **options: Further arguments of `CocoEvaluator`.
    """

    def __init__(
        self,
        *,
        annotations: str,
        categories: Mapping[int, str],
        boxes_only: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(Path(annotations).stem, **options)
        self._boxes_only = boxes_only
        self._dataset: CocoDataset | None = None
        self._categories = {key: categories[key] for key in sorted(categories)}
        self._metadata = Metadata(
            json_file=annotations,
            thing_classes=list(self._categories.values()),
            thing_dataset_id_to_contiguous_id={
                key: index for index, key in enumerate(self._categories)
            },
        )

    def _truth(self) -> COCO:
        return self._load_truth(self._annotation_file())  # a new one, as scorers write into it

    def _load_truth(self, file: str) -> COCO:
        if self._dataset is None:
            self._dataset = read_coco(file, boxes_only=self._boxes_only)
        return COCO(self._dataset.for_scoring(self._categories))


class LvisEvaluator(CocoEvaluator):
    """Box, mask and boundary AP by LVIS's rules, as detectron2's `LVISEvaluator`.

    A detection counts only where the image says that its class is present or absent, a wrong one
    only where the class is annotated exhaustively, and of each image only the 300 highest scores.
    Results have AP, AP50, AP75, APs, APm, APl, and APr, APc, APf of rare, common and frequent
    classes. A group without objects gives NaN, where the official package says -100.
    """

    predictions_file = "lvis_instances_results.json"
    default_max_dets = 300
    lvis_style = True
    metrics = CocoEvaluator.metrics | {name: name for name in ("APr", "APc", "APf")}

    def _dataset_ids(self) -> dict[int, int] | None:
        ids = super()._dataset_ids()
        return ids or {label: label + 1 for label in range(len(self._metadata.thing_classes))}

    def _load_truth(self, file: str) -> COCO:
        return as_lvis(read_annotations(file), file, otherwise="CocoEvaluator")

    def _capped(self, predictions: Predictions) -> Iterable[list[Detection]]:
        return cap_per_image(predictions, self._max_dets)

    def _judged(self, images: Iterable[list[Detection]], truth: COCO) -> Iterator[Detection]:
        return judged(images, truth)

    def _score_classes(self, task: str, scorer: COCOeval_faster) -> dict[str, float]:
        return {}


def _percent(value: float) -> float:
    return float(value) * 100 if value >= 0 else math.nan


def _class_table(scores: dict[str, float]) -> str:
    cells = list(itertools.chain(*scores.items()))
    rows = [cells[i : i + 6] for i in range(0, len(cells), 6)]
    headers = ["category", "AP"] * min(3, len(scores))
    return tabulate(rows, tablefmt="pipe", floatfmt=".3f", headers=headers, numalign="left")
