"""Registers everything of this package with mmsegmentation; configs name it in `custom_imports`.

The stand-in comes first: what follows imports `mmdet.models` and with it `mmcv.ops`. Then
`mmseg.datasets`, without what it prints.
"""

import math
from typing import Any

from eva_openmmlab.stand_in import import_datasets, install_stand_in

install_stand_in()
import_datasets("mmseg.datasets")

from mmseg.datasets.transforms import Resize
from mmseg.registry import TRANSFORMS

from eva_openmmlab import adapter_backbone, config, eomt, hooks, images, loop, optimizer
from eva_segmentation.data import loading
from eva_segmentation.evaluation import metric
from eva_segmentation.model import head, linear_head, segmentor


@TRANSFORMS.register_module(name="Resize", force=True)  # also for what `RandomResize` builds
class ResizeBelow(Resize):
    """mmsegmentation's `Resize`, which leaves images `above` a side as they are."""

    def __init__(self, *args: Any, above: float = math.inf, **options: Any) -> None:
        super().__init__(*args, **options)
        self._above = above

    def transform(self, results: dict[str, Any]) -> Any:
        """Resize an image; see the class."""
        return results if max(results["img_shape"]) > self._above else super().transform(results)
