"""COCO and LVIS scores through hotcoco."""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from hotcoco import COCO

from eva_data.detection.datasets import CocoDataset
from eva_data.detection.keypoints import KeypointNames
from eva_data.detection.scoring import DetectionTable, read_lvis, score
from eva_data.files import load_json, without_collector
from eva_data.saving import write_text
from eva_detection.data.datasets import registered_keypoints
from eva_detection.inference.test_time_augmentation import tabulate_instances

# below detectron2's logger, so that scores also show in detectron2's own training program
logger = logging.getLogger(f"detectron2.{__name__}")

FIXED = "-fixed"
FIXED_DETECTIONS_PER_CLASS = 10_000  # arXiv 2102.01066
TASKS = tuple(kind + end for kind in ("bbox", "segm", "boundary") for end in ("", FIXED))
TASKS += ("keypoints",)


class CocoEvaluator(DatasetEvaluator):
    """Box, mask and boundary AP by COCO's rules, as detectron2's `COCOEvaluator`.

    Results have AP, AP50, AP75, APs, APm, APl, and AP-NAME for each class.

    Args:
        dataset_name: Registered dataset.
        tasks: Any of `bbox`, `segm`, `boundary` (mask AP with the boundary IoU of arXiv
            2103.16562) and the same with `-fixed` (the 10,000 highest scores of each class count,
            however many in an image, arXiv 2102.01066; AP^boundary of the paper's Table 8a is
            `boundary-fixed`). By default `bbox`, `segm` if the model predicts masks, and
            `keypoints` (by OKS) if it predicts these and the labels have some.
        distributed: Score the predictions of all processes together, on the main one.
        output_dir: Folder for the predictions. By default they are not written.
        max_dets_per_image: Limit on detections in an image (COCO: of each class); by default the
            one of the dataset's rules. It does not apply to `-fixed` tasks.
        kpt_oks_sigmas: Of each keypoint, in OKS; by default COCO's of a person's 17, else 0.05.
    """

    predictions_file = "coco_instances_results.json"
    default_max_dets = 100  # of each class
    default_max_keypoints = 20  # as above, of objects with keypoints
    lvis_style = False

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        kpt_oks_sigmas: Sequence[float] | None = None,
    ):
        unknown = set(tasks or ()) - set(TASKS)
        if unknown:
            raise ValueError(f"unknown tasks {unknown}; there are {', '.join(TASKS)}")
        self._name = dataset_name
        self._tasks = tuple(tasks) if tasks else None
        self._distributed = distributed
        self._output_dir = Path(output_dir) if output_dir else None
        self._max_dets = max_dets_per_image or self.default_max_dets
        self._max_keypoints = max_dets_per_image or self.default_max_keypoints
        self._sigmas = [*kpt_oks_sigmas] if kpt_oks_sigmas else None
        self._metadata = MetadataCatalog.get(dataset_name)

    def reset(self) -> None:
        """Start an evaluation, with no predictions."""
        self._tables: list[DetectionTable] = []  # of each image
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id") or {}
        if self.lvis_style and not ids:
            ids = {label + 1: label for label in range(len(self._metadata.thing_classes))}
        self._ids = np.array(sorted(ids, key=ids.__getitem__))  # of the model's classes

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Keep a batch's predictions; a ValueError names a class that the dataset lacks."""
        for image, output in zip(inputs, outputs, strict=True):
            table = tabulate_instances(output["instances"], image["image_id"])
            labels = table.category_id
            if len(self._ids) and labels.max(initial=0) >= len(self._ids):
                raise ValueError(
                    f"the model predicts class {labels.max()}, {self._name} has "
                    f"{len(self._ids)} classes: set the model's num_classes to that"
                )
            table = replace(table, category_id=self._ids[labels]) if len(self._ids) else table
            self._tables.append(table)

    @without_collector()
    def evaluate(self) -> dict[str, dict[str, float]]:
        """Score everything since `reset`.

        Returns:
            Task -> metric -> percent, NaN where the set has no such objects (or nothing was
            found at all); empty on other processes, which do not wait for the scores, for sets
            without annotations, and without predictions.
        """
        # not hotcoco's streams, which merge: the file and `-fixed` tasks need all detections here
        parts = comm.gather(self._tables) if self._distributed else [self._tables]
        self._tables = []
        tables = [table for part in parts for table in part]
        if not tables:
            if parts:  # none on other processes
                logger.warning("%s: no image was processed", self._name)
            return {}
        detections = DetectionTable.concatenate(tables)
        masks, total = detections.masks is not None, len(detections.score)
        if self._output_dir:
            content = json.dumps(detections.results())
            write_text(self._output_dir / self.predictions_file, content)
        logger.info("%d detections in %d images of %s", total, len(tables), self._name)
        if not self._truth.get_ann_ids():
            logger.info("%s has no annotations: nothing to score", self._name)
            return {}
        tasks = self._tasks or self._find_tasks(detections)
        kinds = {task.removesuffix(FIXED) for task in tasks}
        lacking = ["masks"] if not masks and kinds & {"segm", "boundary"} else []
        lacking += ["keypoints"] if "keypoints" in kinds and detections.keypoints is None else []
        if lacking:
            what = " and ".join(lacking)
            raise ValueError(f"tasks are {', '.join(tasks)}, but the model predicts no {what}")
        if not total:
            logger.warning("%s: the model found nothing", self._name)
        return {task: self._score(task, detections) for task in tasks}

    def _find_tasks(self, detections: DetectionTable) -> list[str]:
        tasks = ["bbox"] if detections.masks is None else ["bbox", "segm"]
        labelled = any("keypoints" in category for category in self._truth.cats.values())
        if detections.keypoints is not None and labelled:
            tasks.append("keypoints")
        return tasks

    def _find_keypoints(self) -> KeypointNames | None:
        return registered_keypoints(self._name)

    def labels(self) -> Mapping[str, Any]:
        """Return the annotations that it scores by, in COCO's format."""
        source = self._source
        labels: dict[str, Any] = load_json(Path(source)) if isinstance(source, str) else source
        return labels

    @functools.cached_property
    def _source(self) -> Any:
        """The annotations, or their file, which hotcoco reads faster."""
        return self._file()

    @functools.cached_property
    def _truth(self) -> COCO:
        return COCO(self._source)

    def _file(self) -> str:
        return PathManager.get_local_path(self._metadata.json_file)

    def _score(self, task: str, detections: DetectionTable) -> dict[str, float]:
        kind, limit, fixed = task.removesuffix(FIXED), self._max_dets, task.endswith(FIXED)
        if fixed:
            limit = FIXED_DETECTIONS_PER_CLASS
            detections = detections.limit_classes(limit)
        rules: Any = dict(limit=limit, lvis=self.lvis_style, fixed=fixed)
        if kind == "keypoints":
            points = self._find_keypoints()
            rules |= dict(
                limit=self._max_keypoints, sigmas=self._sigmas or (points and points.sigmas)
            )
        metrics, classes = score(self._truth, detections.load(self._truth, kind), kind, **rules)
        results = {name: 100 * value for name, value in metrics.items()}
        logger.info("Evaluation results for %s: \n%s", task, create_small_table(results))
        names = self._metadata.get("thing_classes") or ()
        if self.lvis_style or len(names) <= 1 or not classes:
            return results
        scores = zip(names, classes.values(), strict=True)
        return results | {f"AP-{name}": 100 * value for name, value in scores}


class CustomEvaluator(CocoEvaluator):
    """`CocoEvaluator` of own data, which may lack areas, crowd flags or some of the categories.

    `categories` are the classes of the model, in order of their ids.
    """

    default_max_keypoints = CocoEvaluator.default_max_dets

    def __init__(self, dataset: CocoDataset, categories: Mapping[int, str], **options: Any) -> None:
        super().__init__(dataset.path.stem, **options)
        self._dataset = dataset
        self._categories = {key: categories[key] for key in sorted(categories)}
        ids = {key: index for index, key in enumerate(self._categories)}
        self._metadata = Metadata(
            thing_classes=list(self._categories.values()), thing_dataset_id_to_contiguous_id=ids
        )

    @functools.cached_property
    def _source(self) -> Any:
        return self._dataset.for_scoring(self._categories)

    def _find_keypoints(self) -> KeypointNames | None:
        return self._dataset.keypoints


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

    @functools.cached_property
    def _source(self) -> Any:
        return read_lvis(self._file(), otherwise="CocoEvaluator")
