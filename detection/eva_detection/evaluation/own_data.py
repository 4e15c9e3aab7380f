"""Scores on any data set in COCO format, read as training reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.data.catalog import Metadata
from faster_coco_eval import COCO

from eva_data.detection.coco import CocoDataset, read_coco
from eva_detection.evaluation.evaluators import CocoEvaluator


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
