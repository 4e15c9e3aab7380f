"""A segmentor for one image at a time, usable from Python in three lines.

from eva_segmentation.inference.predictor import Predictor
predictor = Predictor.from_config("segmentation/configs/...py", weights="eva_sem_seg_....pth")
classes = predictor("photo.jpg")  # (H, W) indices into predictor.names

The folder of a run has both: `Predictor.from_config("output/semantic")`.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from eva_backbone import no_init_weights
from eva_data.files import DEMO_IMAGE_SUFFIXES
from eva_data.images import UnreadableImageError, read_rgb
from eva_data.inputs import predicted
from eva_data.label_maps import Color, described
from eva_openmmlab.config import named_predictor
from eva_segmentation.data.pipelines import LABEL_READERS, PICTURE_READERS
from eva_segmentation.model.weights import load_segmentor

ImageLike = NDArray[np.uint8] | Image.Image | str | os.PathLike[str]
Classes = NDArray[np.uint8]
__all__ = ["Predictor"]
_READERS = (*PICTURE_READERS, *LABEL_READERS)


class Predictor:
    """A segmentor with its preprocessing; `from_config` builds one.

    Args:
        model: The segmentor with its weights, or `StreamingTTA` around it.
        pipeline: Transforms of a test picture, without those that read files.
        names: Names of the classes in the model's order.
        colors: RGB colours of the classes.
        labels: Value of each class in the data set's label maps.
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
        self.model: Any = model.eval()  # mmengine's, with `test_step`
        self.names = tuple(names)
        self.colors = tuple(colors)
        self.labels = tuple(labels)
        self._prepare = Compose([{"type": "LoadImageFromNDArray"}, *pipeline])

    @classmethod
    def from_config(
        cls,
        config: str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        multi_scale: bool = False,
    ) -> "Predictor":
        """Build the segmentor of a config and load its weights.

        Args:
            config: Name of a recipe, a config file, or the folder of a run, which has its own.
            weights: Name of an official file, a path, or the folder of a run; a segmentor, not a
                backbone. None for those of the run that `config` names.
            device: Such as "cuda" or "cpu"; None for the GPU if there is one.
            multi_scale: Average over the scales and flips of the config's `tta_pipeline`.

        Raises:
            ValueError: If the weights do not fit or lack a part, or the config has no
                `tta_pipeline`.
            FileNotFoundError: If the config or the weights do not exist.
        """
        cfg, weights, place = named_predictor(config, weights, device, task="segmentation")
        init_default_scope(cfg.get("default_scope", "mmseg"))
        pipeline = cfg.test_dataloader.dataset.pipeline
        if multi_scale and "module" not in cfg.model:
            if not cfg.get("tta_pipeline"):
                raise ValueError(f"{cfg.filename} has no tta_pipeline, which --tta needs")
            pipeline = cfg.tta_pipeline
            cfg.model = {**cfg.tta_model, "module": cfg.model}
        with no_init_weights():
            model = MODELS.build(cfg.model)
        load_segmentor(getattr(model, "module", model), weights, complete=True)
        model.to(place)
        names, colors, labels = _classes(cfg)
        return cls(
            model, pipeline=_without_loading(pipeline), names=names, colors=colors, labels=labels
        )

    def __call__(
        self, image: ImageLike | Sequence[ImageLike]
    ) -> Classes | list[Classes] | Iterator[tuple[Path, Classes]]:
        """Find the class of each pixel, of one picture or of several.

        Args:
            image: (H, W, 3) RGB in uint8, a PIL image, or the path of an image file; a list of
                them; a folder, or a pattern such as `photos/*.jpg`.

        Returns:
            (H, W) indices of classes; a list of them for a list; pairs of file and indices, one
            after another, for a folder or a pattern.

        Raises:
            UnreadableImageError: A ValueError, if the file or picture cannot be read.
            ValueError: If the array is not such an image.
        """
        return predicted(
            self.classes_of, image, suffixes=DEMO_IMAGE_SUFFIXES, unreadable=UnreadableImageError
        )

    def classes_of(self, image: ImageLike) -> Classes:
        """Find the class of each pixel of one picture.

        Args:
            image: (H, W, 3) RGB in uint8, a PIL image, or the path of an image file.

        Returns:
            (H, W) indices of classes.

        Raises:
            UnreadableImageError: A ValueError, if the file or picture cannot be read.
            ValueError: If the array is not such an image.
        """
        rgb = read_rgb(image, upright=True)
        bgr = np.ascontiguousarray(rgb[:, :, ::-1])  # as mmsegmentation reads files
        data = pseudo_collate([self._prepare({"img": bgr})])
        with torch.inference_mode():
            (sample,) = self.model.test_step(data)
        return sample.pred_sem_seg.data[0].to("cpu", torch.uint8).numpy()


def _classes(cfg: Config) -> tuple[list[str], list[Color], list[int]]:
    """Read names, colours and labels of the test set, whose files need not be there."""
    settings = {**cfg.test_dataloader.dataset, "lazy_init": True, "pipeline": []}
    return described(DATASETS.build(settings).metainfo)


def _without_loading(pipeline: Sequence[Any]) -> list[Any]:
    """Keep the transforms that read no files, also inside `TestTimeAug`."""
    kept: list[Any] = []
    for step in pipeline:
        if isinstance(step, list | tuple):
            inner = _without_loading(step)
            kept += [inner] if inner else []  # an empty list of alternatives leaves no view
        elif step["type"].rpartition(".")[2] not in _READERS:
            inside = step.get("transforms")
            kept.append({**step, "transforms": _without_loading(inside)} if inside else step)
    return kept
