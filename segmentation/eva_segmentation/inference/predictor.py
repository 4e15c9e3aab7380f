"""A segmentor for one image at a time, usable from Python in three lines.

from eva_segmentation.inference.predictor import Predictor
predictor = Predictor.from_run("output/semantic")  # or from_config(RECIPE, weights=WEIGHTS)
classes = predictor("photo.jpg")  # (H, W) indices into predictor.names
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import eva_segmentation.model.segmentor  # noqa: F401 (how segmentors are loaded)
from eva_data.label_maps import Color, describe_classes
from eva_openmmlab.predictor import ImageLike, ImagePredictor, Source, load_model
from eva_runs.options import Precision
from eva_segmentation.commands import change_views

__all__ = ["Predictor"]
Classes = NDArray[np.uint8]


class Predictor(ImagePredictor[Classes]):
    """A segmentor with its preprocessing; `from_config` builds one.

    Args:
        model: The segmentor with its weights, or `StreamingTTA` around it.
        pipeline: Transforms of a test image; those that read files are left out.
        names: Names of the classes in the model's order.
        colors: RGB colours of the classes.
        labels: Value of each class in the dataset's label maps.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pipeline: Sequence[Any],
        names: Sequence[str],
        colors: Sequence[Color],
        labels: Sequence[int],
    ) -> None:
        super().__init__(model, pipeline)
        self.pipeline = tuple(pipeline)
        self.names, self.colors, self.labels = tuple(names), tuple(colors), tuple(labels)

    @classmethod
    def from_config(
        cls,
        config: Source,
        *,
        weights: Source | None = None,
        device: str | None = None,
        precision: Precision = "fp32",
        multi_scale: bool = False,
        slice: int | str | None = None,
        overlap: float = 0.2,
    ) -> "Predictor":
        """Build the segmentor of a config and load its weights.

        Args:
            config: Name of a recipe, a config file, or the folder of a run, which has its own.
            weights: Name of an official file, a path, or the folder of a run; a segmentor, not a
                backbone. None for those of the run that `config` names.
            device: Such as "cuda" or "cpu"; None for the GPU if there is one.
            precision: Of the backbone, see `eva_runs.precision.resolve`; the heads are in fp32.
            multi_scale: Average over the views of the config's `tta_pipeline`.
            slice: Side in px of tiles of large images, or "auto"; they are not resized.
            overlap: Least fraction of a tile that its neighbour has, too.

        Raises:
            ValueError: If the weights do not fit, or the config has no `tta_pipeline`.
            FileNotFoundError: If the config or the weights do not exist.
        """
        change = partial(change_views, multi_scale=multi_scale, slice=slice, overlap=overlap)
        model, pipeline, metainfo = load_model(
            config, weights, device, task="segmentation", precision=precision, change=change
        )
        names, colors, labels = describe_classes(metainfo)
        return cls(model, pipeline=pipeline, names=names, colors=colors, labels=labels)

    def predict(self, source: ImageLike) -> Classes:
        """Find the class of each pixel: (H, W) indices into `names`."""
        classes: Classes = self.sample(source).pred_sem_seg.data[0].to("cpu", torch.uint8).numpy()
        return classes

    def probable(self, image: ImageLike) -> tuple[Classes, Tensor]:
        """Find the class of each pixel (H, W), and the probabilities of it and the second best.

        They are (2, H, W), of logits by softmax, and of Mask2Former's sums by their shares.
        """
        sample = self.sample(image)
        scores = sample.seg_logits.data.float()  # (K, H, W)
        if len(scores) == 1:  # the probability of the second of two classes
            scores = torch.cat([1 - scores, scores])
        scores = scores.softmax(0) if scores.min() < 0 else scores
        best = (scores / scores.sum(0).clamp(min=1e-9)).topk(2, dim=0).values
        return sample.pred_sem_seg.data[0].to("cpu", torch.uint8).numpy(), best.cpu()
