"""The segmentor with a sliding window, and its test at several scales with little memory.

Shapes: B images, K classes, H x W the size that is looked at.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
from mmengine.structures import PixelData
from torch import Tensor, nn

from eva_openmmlab.stand_in import install_stand_in

install_stand_in()  # before mmsegmentation's models
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel  # noqa: E402
from mmseg.models.segmentors.base import BaseSegmentor  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from mmseg.utils import dataset_aliases, get_classes, get_palette  # noqa: E402

from eva_backbone import LoadReport, load_pretrained  # noqa: E402
from eva_data.detection.tiles import windows  # noqa: E402
from eva_data.label_maps import distinct_color  # noqa: E402
from eva_openmmlab.adapter_backbone import ADAPTER, EVAViTAdapter  # noqa: E402
from eva_openmmlab.backbone import EVAViT  # noqa: E402
from eva_openmmlab.eomt import QUERIES  # noqa: E402
from eva_openmmlab.weights import load_start  # noqa: E402
from eva_segmentation.model.head import modern_name  # noqa: E402

for _backbone in (EVAViT, EVAViTAdapter):  # so that "mmseg.EVAViT" names it too
    MODELS.register_module(module=_backbone)
logger = logging.getLogger(__name__)

_SLICE = 2**24  # probabilities that are computed at once
_DIMENSIONS = 3  # of one image
_HEAD = r"(decode_head|auxiliary_head)\."
_CLASSIFIER = r"(decode_head|auxiliary_head)\.(\d+\.)?(cls_embed|conv_seg)\."


@load_start.register(BaseSegmentor)
def load_segmentor(
    model: nn.Module, source: str | os.PathLike[str], *, complete: bool = False
) -> LoadReport:
    """Load a backbone or a complete segmentor; see `eva_openmmlab.weights.load_start`."""
    return load_pretrained(
        model,
        source,
        complete=complete,
        allow_missing=() if complete else (ADAPTER, QUERIES, _HEAD),
        reinitialise=() if complete else (_CLASSIFIER,),
        rename=modern_name,
    )


class NamedClasses:
    """Part of a model that takes no names of another number of classes K."""

    _meta: Mapping[str, Any] = {}

    @property
    def dataset_meta(self) -> Mapping[str, Any]:
        """`classes` and `palette`, each of K entries, once weights are loaded.

        Names of another number of classes become those of mmsegmentation's dataset of as many, or
        numbers.
        """
        return self._meta

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, Any] | None) -> None:
        model: Any = getattr(self, "module", self)
        count = model.num_classes
        classes, palette = ((meta or {}).get(key) or () for key in ("classes", "palette"))
        if len(classes) != count:
            matches = [name for name in dataset_aliases if len(get_classes(name)) == count]
            message = "%d class names do not fit %d classes: %s"
            logger.info(message, len(classes), count, matches[0] if matches else "numbers")
            classes = get_classes(matches[0]) if matches else [f"class {i}" for i in range(count)]
            palette = get_palette(matches[0]) if matches else ()
        if len(palette) != count:
            palette = [list(distinct_color(index)) for index in range(count)]
        self._meta = {"classes": list(classes), "palette": list(palette)}


@MODELS.register_module()
class EVASegmentor(NamedClasses, EncoderDecoder):
    """mmsegmentation's `EncoderDecoder`, whose head gets the size of what it looks at.

    In mmsegmentation a crop keeps the image's `pad_shape`, to which some heads enlarge the crop,
    a padded image its `img_shape` without padding, and each crop costs another map of the
    complete image.
    """

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Compute scores (B, K, H, W) of images or crops (B, 3, H, W)."""
        size = {"img_shape": tuple(inputs.shape[2:]), "pad_shape": tuple(inputs.shape[2:])}
        scores: Tensor = super().encode_decode(inputs, [metas | size for metas in batch_img_metas])
        return scores

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict[str, Any]]) -> Tensor:
        """Average the scores of overlapping windows of (B, 3, H, W) to (B, K, H, W)."""
        (height, width), cfg = inputs.shape[2:], self.test_cfg
        if "slice" in cfg and max(batch_img_metas[0]["ori_shape"]) > cfg.slice.above:
            cfg = cfg.slice
        (below, across), (step_y, step_x) = (
            cfg.get(key, (height, width)) for key in ("crop_size", "stride")
        )
        total = inputs.new_zeros(len(inputs), self.out_channels, height, width)
        count = inputs.new_zeros(height, width)
        for ys, xs in product(
            windows(height, window=below, stride=step_y),
            windows(width, window=across, stride=step_x),
        ):
            total[:, :, ys, xs] += self.encode_decode(inputs[:, :, ys, xs], batch_img_metas)
            count[ys, xs] += 1
        return total.div_(count)


@MODELS.register_module()
class StreamingTTA(NamedClasses, SegTTAModel):
    """Average over scales and flips that holds one sum and one view's scores, not all views'.

    It computes what mmsegmentation's `SegTTAModel` does, which keeps the scores of all views: 50 GB
    for 14 views of 150 classes and 2000 x 3000 pixels. It takes the same `tta_pipeline`, also under
    `--tta` of mmsegmentation's own `tools/test.py`.

    Args:
        module: The segmentor or its config.
        data_preprocessor: Preprocessor for a segmentor without one.
        pretrained: None, which mmsegmentation's `init_model` gives, as `train_cfg`.
        train_cfg: None.
    """

    def __init__(
        self,
        module: Any,
        data_preprocessor: Any = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        super().__init__(module, data_preprocessor)
        # the samples of one channel have the probability of the second of two classes already;
        # `SegTTAModel` takes the sigmoid of it once more
        self._binary = getattr(self.module, "out_channels", 0) == 1
        self.register_load_state_dict_pre_hook(_into_module)

    def test_step(self, data: Mapping[str, Any] | Sequence[Any]) -> list[SegDataSample]:
        """Predict one batch, of which each value or each sample is a list over views.

        Returns:
            One sample for each image: `seg_logits` holds mean probabilities (K, H, W) and
            `pred_sem_seg` the best class (1, H, W), both at the original size.
        """
        views = list(_views(data))
        totals: list[Tensor] = []
        results: list[SegDataSample] = []
        for view in views:
            samples = self._add(view, totals, share=1 / len(views))
            results = results or samples
        for sample, total in zip(results, totals, strict=True):
            best = total.argmax(dim=0, keepdim=True)
            if self._binary:
                best = (total > self.module.decode_head.threshold).long()
            sample.seg_logits, sample.pred_sem_seg = PixelData(data=total), PixelData(data=best)
        return results

    def _add(self, view: Any, totals: list[Tensor], *, share: float) -> list[SegDataSample]:
        """Add a view's probabilities; returns its samples without scores, to free them."""
        samples: list[SegDataSample] = self.module.test_step(view)
        for index, sample in enumerate(samples):
            scores = sample.seg_logits.data
            if index == len(totals):
                totals.append(torch.zeros_like(scores, dtype=torch.float32))
            rows = max(1, _SLICE // scores[:, 0].numel())
            parts = zip(totals[index].split(rows, 1), scores.split(rows, 1), strict=True)
            for total, part in parts:
                # the official code takes the softmax of scores that are nearly probabilities, too
                part = part.float()
                total += (part if self._binary else part.softmax(dim=0)) * share
            del sample.seg_logits
        return samples


def _views(data: Mapping[str, Any] | Sequence[Any]) -> Iterable[Any]:
    if isinstance(data, Mapping):
        inputs = data.get("inputs", [None])
        if isinstance(inputs[0], Tensor) and inputs[0].dim() == _DIMENSIONS:
            return (data,)
        keys = list(data)
        return ({key: data[key][i] for key in keys} for i in range(len(data[keys[0]])))
    return ([sample[i] for sample in data] for i in range(len(data[0])))


def _into_module(_model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Let mmengine load the weights of a segmentor: without the prefix it would load none."""
    inside = f"{prefix}module."
    if not any(name.startswith(inside) for name in state_dict):
        for name in [name for name in state_dict if name.startswith(prefix)]:
            state_dict[inside + name.removeprefix(prefix)] = state_dict.pop(name)
