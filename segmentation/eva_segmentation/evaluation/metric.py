"""Predicted label maps in files, beside the score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from eva_data.drawing.label_maps import label_image
from eva_data.inputs import save_picture
from eva_segmentation.data.classes import described


@METRICS.register_module()
class IoUAndLabelMaps(IoUMetric):
    """mmsegmentation's `IoUMetric`, which also saves the label map of each picture.

    The maps have the labels of the data set, as `segmentation/demo.py` writes them, and lie in the
    same subfolders as the pictures. `IoUMetric` itself gives equal names one file, and indices of
    classes in place of the labels of own data.

    Args:
        maps: Folder to write.
        images: Folder of the pictures.
        **metric: Arguments of `IoUMetric`.
    """

    def __init__(self, *, maps: str, images: str, **metric: Any) -> None:
        super().__init__(**metric)
        self._maps, self._images = Path(maps), Path(images).absolute()

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Score a batch, and save its maps.

        Args:
            data_batch: Not used.
            data_samples: Predictions and ground truth.
        """
        super().process(data_batch, data_samples)
        _, colors, labels = described(self.dataset_meta or {})
        for sample in data_samples:
            classes = sample["pred_sem_seg"]["data"].squeeze().cpu().numpy().astype("uint8")
            path = Path(sample["img_path"]).absolute()
            inside = path.is_relative_to(self._images)
            name = path.relative_to(self._images) if inside else Path(path.name)
            picture = label_image(classes, labels, colors)
            save_picture(picture, self._maps / name.with_suffix(".png"))
