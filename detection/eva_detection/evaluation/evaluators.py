"""COCO and LVIS scores through faster-coco-eval."""

import functools
import itertools
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from faster_coco_eval import COCO, COCOeval_faster

from eva_data.detection.coco import read_coco
from eva_data.detection.scoring import (
    Detection,
    as_lvis,
    cap_per_class,
    cap_per_image,
    class_scores,
    judged,
    read_annotations,
)
from eva_data.files import without_collector, write_text
from eva_detection.inference.test_time_augmentation import as_coco

# below detectron2's logger, so that scores also show in detectron2's own training program
logger = logging.getLogger(f"detectron2.{__name__}")

FIXED = "-fixed"
FIXED_DETECTIONS_PER_CLASS = 10_000  # arXiv 2102.01066
TASKS = tuple(kind + end for kind in ("bbox", "segm", "boundary") for end in ("", FIXED))


class CocoEvaluator(DatasetEvaluator):
    """Box, mask and boundary AP by COCO's rules, as detectron2's `COCOEvaluator`.

    Results have AP, AP50, AP75, APs, APm, APl, and AP-NAME for each class.

    Args:
        dataset_name: Registered dataset.
        tasks: Any of `bbox`, `segm`, `boundary` (mask AP with the boundary IoU of arXiv
            2103.16562) and the same with `-fixed` (the 10,000 highest scores of each class count,
            however many in an image, arXiv 2102.01066; AP^boundary of the paper's Table 8a is
            `boundary-fixed`). By default `bbox`, and `segm` if the model predicts masks.
        distributed: Score the predictions of all processes together, on the main one.
        output_dir: Folder for the predictions. By default they are not written.
        max_dets_per_image: Limit on detections in an image (COCO: of each class); by default the
            one of the dataset's rules. It does not apply to `-fixed` tasks.
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
        if unknown := set(tasks or ()) - set(TASKS):
            raise ValueError(f"unknown tasks {unknown}; there are {', '.join(TASKS)}")
        self._name = dataset_name
        self._tasks = tuple(tasks) if tasks else None
        self._distributed = distributed
        self._output_dir = Path(output_dir) if output_dir else None
        self._max_dets = max_dets_per_image or self.default_max_dets
        self._metadata = MetadataCatalog.get(dataset_name)

    def _dataset_ids(self) -> dict[int, int] | None:
        """Map each class of the model to its category id in the dataset's file; None: the same."""
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        return {label: category for category, label in ids.items()} if ids else None

    def _counted(
        self, images: Iterable[list[Detection]], truth: COCO, *, fixed: bool
    ) -> Iterable[Detection]:
        """Choose the detections that count."""
        return itertools.chain.from_iterable(images)  # the scorer knows the limit on each class

    def reset(self) -> None:
        """Start an evaluation, with no predictions."""
        self._predictions: list[list[Detection]] = []  # of each image
        self._masks = False
        self._ids = self._dataset_ids()

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Keep a batch's predictions; a ValueError names a class that the dataset lacks."""
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            self._masks |= instances.has("pred_masks") or instances.has("pred_masks_rle")
            detections = as_coco(instances, image["image_id"])
            if ids := self._ids:
                for one in detections:
                    if one["category_id"] not in ids:
                        raise ValueError(
                            f"the model predicts class {one['category_id']}, {self._name} has "
                            f"{len(ids)} classes: set the model's num_classes to that"
                        )
                    one["category_id"] = ids[one["category_id"]]
            self._predictions.append(detections)

    @without_collector()
    def evaluate(self) -> dict[str, dict[str, float]]:
        """Score everything since `reset`.

        Returns:
            Task -> metric -> percent, NaN where the set has no such objects (or nothing was
            found at all); empty on other processes, which do not wait for the scores, for sets
            without annotations, and without predictions.
        """
        own = (self._predictions, self._masks)
        parts = comm.gather(own) if self._distributed else [own]
        self._predictions = []
        images = [image for part, _ in parts for image in part]
        if not images:
            if parts:  # none on other processes
                logger.warning("%s: no image was processed", self._name)
            return {}
        if self._output_dir:
            text = json.dumps([*itertools.chain.from_iterable(images)])
            write_text(self._output_dir / self.predictions_file, text)
        masks, total = any(masks for _, masks in parts), sum(map(len, images))
        logger.info("%d detections in %d images of %s", total, len(images), self._name)
        truth = self._truth()
        if not truth.anns:
            logger.info("%s has no annotations: nothing to score", self._name)
            return {}
        tasks = self._tasks or (("bbox", "segm") if masks else ("bbox",))
        if not masks and {task.removesuffix(FIXED) for task in tasks} != {"bbox"}:
            raise ValueError(f"tasks are {', '.join(tasks)}, but the model predicts no masks")
        if not total:
            logger.warning("%s: the model found nothing", self._name)
            return {task: dict.fromkeys(self.metrics, math.nan) for task in tasks}
        return {task: self._score(task, images, truth) for task in tasks}

    def labels(self) -> Mapping[str, Any]:
        """Return the annotations that it scores by, in COCO's format, which it keeps."""
        return cast("Mapping[str, Any]", self._truth().dataset)

    @functools.cached_property
    def _parsed(self) -> Any:
        """The annotations, parsed at the first evaluation."""
        return read_annotations(self._file())

    def _truth(self) -> COCO:
        truth: COCO = self._parsed
        return truth

    def _file(self) -> str:
        return PathManager.get_local_path(self._metadata.json_file)

    def _score(self, task: str, images: Iterable[list[Detection]], truth: COCO) -> dict[str, float]:
        kind, limit, fixed = task.removesuffix(FIXED), self._max_dets, task.endswith(FIXED)
        if fixed:
            limit = FIXED_DETECTIONS_PER_CLASS
            images = cap_per_class(images, limit)
        counted: Iterable[Detection] = self._counted(images, truth, fixed=fixed)
        if kind == "bbox":
            counted = ({k: v for k, v in one.items() if k != "segmentation"} for one in counted)
        else:  # an area is that of the mask; the empty box is one that nobody computes
            counted = (one | {"bbox": []} for one in counted)
        found = truth.loadRes([*counted])
        style = dict(lvis_style=self.lvis_style, print_function=logger.debug)
        scorer = COCOeval_faster(truth, found, kind, **style)
        scorer.params.maxDets = [limit]
        scorer.run()
        results = {name: _percent(scorer.stats_as_dict[key]) for name, key in self.metrics.items()}
        logger.info("Evaluation results for %s: \n%s", task, create_small_table(results))
        return results | self._score_classes(scorer)

    def _score_classes(self, scorer: COCOeval_faster) -> dict[str, float]:
        """Compute the AP of each class, where the rules have that."""
        names = self._metadata.get("thing_classes") or ()
        if len(names) <= 1:
            return {}
        scores = map(_percent, class_scores(scorer).values())
        return {f"AP-{name}": score for name, score in zip(names, scores, strict=True)}


class CustomEvaluator(CocoEvaluator):
    """`CocoEvaluator` of a file that may lack areas, crowd flags or some of the categories.

    `categories` are the classes of the model, in order of their ids; `boxes_only` leaves masks of
    the file alone, whatever they are.
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
        self._categories = {key: categories[key] for key in sorted(categories)}
        ids = {key: index for index, key in enumerate(self._categories)}
        self._metadata = Metadata(
            json_file=annotations,
            thing_classes=list(self._categories.values()),
            thing_dataset_id_to_contiguous_id=ids,
        )

    @functools.cached_property
    def _parsed(self) -> Any:
        return read_coco(self._file(), boxes_only=self._boxes_only)

    def _truth(self) -> COCO:  # a new one, as scorers write into it
        return COCO(self._parsed.for_scoring(self._categories))


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

    def _truth(self) -> COCO:
        return as_lvis(super()._truth(), self._file(), otherwise="CocoEvaluator")

    def _counted(
        self, images: Iterable[list[Detection]], truth: COCO, *, fixed: bool
    ) -> Iterable[Detection]:
        return judged(images if fixed else cap_per_image(images, self._max_dets), truth)

    def _score_classes(self, scorer: COCOeval_faster) -> dict[str, float]:
        return {}


def _percent(value: float) -> float:
    return float(value) * 100 if value >= 0 else math.nan
