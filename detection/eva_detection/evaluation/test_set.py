"""The test set of a run: its records and its evaluator, built once for all evaluations."""

import functools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectron2.data import DatasetFromList, build_detection_test_loader
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from eva_data.detection.resolved import DetectionData
from eva_data.files import load_json
from eva_data.progress import progress
from eva_detection.building import build, target_of
from eva_detection.data.loading import loader_arguments
from eva_detection.data.records import (
    annotation_files,
    check_files,
    describe_data,
    looks_at_files,
    make_records,
    records_of,
)
from eva_detection.evaluation.evaluators import CustomEvaluator
from eva_detection.inference.test_time_augmentation import with_slicing, with_test_time_augmentation
from eva_report.page import write_results
from eva_report.terminal import SHOWN
from eva_runs.data_order import end_workers, guard_workers

logger = logging.getLogger(__name__)


class EvaluationLoader:
    """A test loader whose workers leave signals to the run and end with the evaluation.

    A loader that is not torch's is used as it is.
    """

    def __init__(self, loader: Any, *, bar: bool = False) -> None:
        self._loader, self._bar = loader, bar
        self._batches: Any = None
        if isinstance(loader, DataLoader):
            guard_workers(loader)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        self._batches = iter(self._loader)
        if self._bar:
            return progress(self._batches, total=len(self), title="evaluating", unit="batch")
        return self._batches

    def close(self) -> None:
        """Shut the workers down; they ignore signals."""
        end_workers(self._batches)
        self._batches = None


class EvaluationSet:
    """The test set of a run with its evaluator, built once for all evaluations."""

    __test__ = False  # for pytest: not a class of tests

    def __init__(self, cfg: DictConfig, data: DetectionData | None = None) -> None:
        self.cfg = cfg
        self.data = data  # own data; those of training until they are packed
        self.training = ""  # description of the training data, once they are read

    @property
    def is_scored(self) -> bool:
        """Whether the config has an evaluator."""
        return "evaluator" in self.cfg.dataloader

    def check(self) -> None:
        """Look at every image, once on each machine."""
        if self.is_scored and looks_at_files():
            _ = self.evaluator, self._dataset

    @functools.cached_property
    def evaluator(self) -> Any:
        """The evaluator, which keeps the annotations once it has scored."""
        node = self.cfg.dataloader.evaluator
        if self.data is None:
            return build(node, "dataloader.evaluator")
        val, categories = self.data.parts["val"], self.cfg.own_data.categories
        make = functools.partial(CustomEvaluator, val, categories)
        return build({**node}, "dataloader.evaluator", lambda options: make(**options))

    @functools.cached_property
    def files(self) -> dict[Any, Path]:
        """The file of each image id."""
        return {
            record["image_id"]: Path(record["file_name"]) for record in records_of(self._dataset)
        }

    @functools.cached_property
    def labels(self) -> Any:
        """The labels in COCO's format: those of the evaluator, or else of the first file."""
        if hasattr(self.evaluator, "labels"):
            return self.evaluator.labels()
        return load_json(Path(annotation_files(self.cfg, "val")[0]))

    @functools.cached_property
    def _dataset(self) -> Any:
        """The dataset, in detectron2's packed form, which takes little memory, if it builds it."""
        node = self.cfg.dataloader.test
        dataset = self.build_dataset("val")
        records = records_of(dataset)
        if self.is_scored and looks_at_files():
            check_files(records, part="evaluation")
        if records:
            logger.info("data     val: %s", describe_data(self.cfg, "val", records), extra=SHOWN)
        if isinstance(dataset, list) and target_of(node) is build_detection_test_loader:
            return DatasetFromList(dataset, copy=False)
        return dataset

    def build_dataset(self, part: str) -> Any:
        """Build the dataset of "train" or "val"; of own data from the objects that were read."""
        name = "train" if part == "train" else "test"
        node = self.cfg.dataloader[name].dataset
        if self.data is None:
            return build(node, f"dataloader.{name}.dataset")
        filter_empty = part == "train" and node.get("filter_empty", True)
        categories = dict(self.cfg.own_data.categories)
        return make_records(self.data.parts[part], categories, filter_empty=filter_empty)

    def release_training(self) -> None:
        """Free the memory of own training data, which are packed."""
        if self.data is not None:
            self.data = replace(self.data, parts={"val": self.data.parts["val"]})

    @functools.cached_property
    def loader(self) -> EvaluationLoader:
        """The loader."""
        node = self.cfg.dataloader.test
        bar = comm.is_main_process() and bool(OmegaConf.select(self.cfg, "train.progress_bar"))
        arguments = loader_arguments(node, "dataloader.test", self._dataset)
        loader = build(arguments, "dataloader.test", lambda arguments: target_of(node)(**arguments))
        return EvaluationLoader(loader, bar=bar)

    def score(self, model: nn.Module, *, augment: bool = True) -> dict[str, Any]:
        """Score a model, maybe wrapped for data parallelism.

        `augment` uses test-time augmentation if the config has `test.aug`. The scores, also in
        `results.json`, are those of the main process; others, or no evaluator, give none.
        """
        if not self.is_scored:
            logger.warning("the config has no dataloader.evaluator: nothing is evaluated")
            return {}
        if augment:
            model = with_test_time_augmentation(self.cfg, model)
        model, loader = with_slicing(self.cfg, model), self.loader
        try:
            results = inference_on_dataset(model, loader, self.evaluator) or {}
        finally:
            loader.close()
        if results and comm.is_main_process():
            write_results(Path(self.cfg.train.output_dir), results)
        return results
