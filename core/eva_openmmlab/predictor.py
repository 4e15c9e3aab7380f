"""Predictors of mmsegmentation and mmdetection."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from eva_backbone import no_init_weights
from eva_data.files import expand_home
from eva_openmmlab.config import load_config, parts_of
from eva_openmmlab.images import bands_of
from eva_openmmlab.run_folder import require_config_of_run
from eva_openmmlab.weights import load_start
from eva_runs.options import Precision
from eva_runs.precision import lower_backbone, require_device
from eva_runs.predictor import BasePredictor, Prediction
from eva_runs.recipes import find_recipe

ImageLike = NDArray[Any] | Image.Image | str | os.PathLike[str]
Source = str | os.PathLike[str]
READERS = re.compile(
    r"(.*\.)?(LoadImageFromFile|LoadPicture|LoadAnnotations|LoadCheckedAnnotations|LoadLabelMap)"
)


class ImagePredictor(BasePredictor[Prediction]):
    """A model of mmengine with its preprocessing, whose readers of files are left out."""

    from_config: ClassVar[Callable[..., Any]]

    def __init__(self, model: nn.Module, pipeline: Sequence[Any]) -> None:
        self.model: Any = model.eval()
        self._prepare = for_arrays(pipeline)
        self.bands = bands_of(getattr(self.model, "module", self.model).data_preprocessor)

    @classmethod
    def from_run(cls, run: Source, **options: Any) -> Self:
        """Build the predictor of a run; `options` are those of `from_config`."""
        return cls.from_config(run, **options)

    def prepare(self, image: ImageLike) -> dict[str, Any]:
        """Prepare an image as in tests: `inputs` (3, H, W) in BGR, and `data_samples`."""
        pixels = self.read_image(image)
        # BGR as the frameworks read files
        seen = self.bands.scale(pixels) if self.bands else np.ascontiguousarray(pixels[:, :, ::-1])
        inputs: dict[str, Any] = self._prepare({"img": seen, "img_id": 0, "img_path": ""})
        if hasattr(self.model, "slicing"):  # which reads it again
            inputs["data_samples"].set_metainfo({"img_path": pixels})
        return inputs

    def sample(self, image: ImageLike) -> Any:
        """Run the model on an image; its sample."""
        data = pseudo_collate([self.prepare(image)])
        with torch.inference_mode():
            (sample,) = self.model.test_step(data)
        return sample


def for_arrays(pipeline: Sequence[Any]) -> Compose:
    """Build the transforms of a test image for arrays, without those that read files."""
    return Compose([{"type": "LoadImageFromNDArray"}, *_without_reading(pipeline)])


def _without_reading(pipeline: Sequence[Any]) -> list[Any]:
    """Keep the transforms that read no files, also inside `TestTimeAug`."""
    transforms: list[Any] = []
    for step in pipeline:
        if isinstance(step, list | tuple):
            inner = _without_reading(step)
            transforms += [inner] if inner else []  # an empty list of alternatives leaves no view
        elif not READERS.fullmatch(step["type"]):
            inside = step.get("transforms")
            transforms.append({**step, "transforms": _without_reading(inside)} if inside else step)
    return transforms


def load_model(
    config: Source,
    weights: Source | None,
    device: str | None,
    *,
    task: str,
    precision: Precision = "fp32",
    change: Callable[[Config], None] | None = None,
) -> tuple[nn.Module, Sequence[Any], Mapping[str, Any]]:
    """Build the model that a caller of `from_config` names, and load all of its weights.

    `change` adapts the config before.

    Returns:
        The model on its device; pipeline and metainfo of its test set, whose files need not exist.

    Raises:
        ValueError: If there is no such recipe, run or device, or the weights do not fit.
    """
    location = expand_home(config)
    if location.is_dir() or (location.suffix == ".pth" and location.is_file()):
        path, weights = require_config_of_run(location), weights or config
    else:
        path = find_recipe(task, config)
    if weights is None:
        raise ValueError(f"{config} has no weights: name them as well")
    chosen_device = require_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    cfg = load_config(path)
    if change is not None:
        change(cfg)
    init_default_scope(cfg.default_scope)
    dataset = parts_of(cfg.test_dataloader.dataset)[0]
    metainfo = DATASETS.build({**dataset, "lazy_init": True, "pipeline": []}).metainfo
    with no_init_weights():
        model: nn.Module = MODELS.build(cfg.model)
    inside: Any = getattr(model, "module", model)
    load_start(inside, weights, complete=True)
    lower_backbone(inside.to(chosen_device).backbone, precision, chosen_device)
    return model.to(chosen_device), dataset.pipeline, metainfo
