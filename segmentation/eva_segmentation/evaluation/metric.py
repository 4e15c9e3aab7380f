"""IoU, what was taken for what, and predicted label maps in files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from numpy.typing import NDArray
from torch import Tensor

from eva_data.images import save_image
from eva_data.label_maps import describe_classes
from eva_report.drawing import label_image


class ImageScore(NamedTuple):
    """How well an image was segmented: the mean IoU over the classes of its truth, 0 to 1."""

    path: str
    iou: float


@METRICS.register_module()
class IoUAndConfusion(IoUMetric):
    """mmsegmentation's `IoUMetric` (arguments as there), which also counts what was taken for what.

    Attributes:
        confusion: (K, K), pixels of each class (row) that were given each class (column); on the
            main process after an evaluation, and None before.
        images: Scores of the images that have pixels of a class; likewise.
        counts: (K,), images that have pixels of each class; likewise.
        areas: Names of all images, and pixels (N, K) of each class: right ones, and those of its
            label or prediction; None where nothing was scored.
    """

    def __init__(self, **metric: Any) -> None:
        super().__init__(**metric)
        self.confusion: NDArray[np.int64] | None = None
        self.images: list[ImageScore] = []
        self.counts: NDArray[np.int64] = np.zeros(0, np.int64)
        self.areas: tuple[list[str], NDArray[np.int64], NDArray[np.int64]] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Score a batch of predictions and ground truth."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        areas = self.results[before:]  # none with `format_only`
        count = len(self.dataset_meta["classes"])
        self.results[before:] = [
            (area, str(sample.get("img_path", "")), _cells(sample, count, self.ignore_index))
            for area, sample in zip(areas, data_samples, strict=False)
        ]

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Score the images of all processes: name -> percent."""
        scores: dict[str, float] = super().compute_metrics([areas for areas, _, _ in results])
        count = len(self.dataset_meta["classes"])
        total = np.zeros(count * count, np.int64)
        self.images, self.counts, self.areas = [], np.zeros(count, np.int64), None
        for (intersection, union, _, label), path, (cells, pixels) in results:
            total[cells] += pixels
            is_present = label > 0
            self.counts += is_present.numpy()
            if path and is_present.any():
                iou = (intersection[is_present] / union[is_present]).mean()
                self.images.append(ImageScore(path, float(iou)))
        self.confusion = total.reshape(count, count)
        if results:
            columns = zip(*(areas for areas, _, _ in results), strict=True)
            intersections, unions, *_ = (torch.stack(column).long().numpy() for column in columns)
            self.areas = [path for _, path, _ in results], intersections, unions
        return scores


def _cells(
    sample: dict[str, Any], count: int, ignored: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the pixels of each pair of label and prediction: an image has few of K * K pairs."""
    predicted: Tensor = sample["pred_sem_seg"]["data"].squeeze()
    label: Tensor = sample["gt_sem_seg"]["data"].squeeze().to(predicted)
    counted = (label != ignored) & (label < count)
    numbers = label[counted].long() * count + predicted[counted].long()
    pairs = torch.bincount(numbers, minlength=count * count)
    (cells,) = pairs.nonzero(as_tuple=True)
    return cells.cpu().numpy(), pairs[cells].cpu().numpy()


@METRICS.register_module()
class IoUAndLabelMaps(IoUAndConfusion):
    """The same, which also saves the label map of each image.

    The maps have the labels of the dataset, and lie in the same subfolders of `maps` as the images
    in `images`. `IoUMetric` itself gives equal names one file, and indices of classes in place of
    the labels of own data.
    """

    def __init__(self, *, maps: str, images: str, **metric: Any) -> None:
        super().__init__(**metric)
        self._maps, self._images = Path(maps), Path(images).absolute()

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Score a batch, and save its maps."""
        super().process(data_batch, data_samples)
        _, colors, labels = describe_classes(self.dataset_meta or {})
        for sample in data_samples:
            classes = sample["pred_sem_seg"]["data"].squeeze().cpu().numpy().astype("uint8")
            path = Path(sample["img_path"]).absolute()
            inside = path.is_relative_to(self._images)
            name = path.relative_to(self._images) if inside else Path(path.name)
            image = label_image(classes, labels, colors)
            save_image(image, self._maps / name.with_suffix(".png"))
