"""mmdetection's RPN with detectron2's order of proposals, in float32 when training.

Letters: A anchors at a position, H x W positions of a level, n proposals of an image.
"""

from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from eva_backbone.resample import no_autocast


@MODELS.register_module()
class EVARPNHead(RPNHead):
    """`RPNHead` that ranks proposals by their logits.

    mmdetection ranks by probability, in which float32 cannot tell confident proposals apart: their
    order is then chance, and with it what NMS keeps.
    """

    def loss_and_predict(self, x: tuple[Tensor, ...], *args: Any, **kwargs: Any) -> Any:
        """Compute losses and proposals in float32, whatever the autocast around it."""
        with no_autocast(x[0].device):
            return super().loss_and_predict(tuple(level.float() for level in x), *args, **kwargs)

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor],
        mlvl_priors: list[Tensor],
        img_meta: dict[str, Any],
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceData:
        """Choose an image's proposals; arguments as mmdetection's, levels (A, H, W)."""
        del score_factor_list
        cfg = self.test_cfg if cfg is None else cfg
        best = []
        for level, (logits, deltas, anchors) in enumerate(
            zip(cls_score_list, bbox_pred_list, mlvl_priors, strict=True)
        ):
            logits = logits.permute(1, 2, 0).flatten()  # (H * W * A,)
            deltas = deltas.permute(1, 2, 0).reshape(-1, 4)
            count = cfg.get("nms_pre", -1)
            top, index = logits.topk(min(count, len(logits)) if count > 0 else len(logits))
            levels = torch.full_like(index, level)
            best.append((top, deltas[index], anchors[index], levels))
        scores, deltas, anchors, levels = (torch.cat(parts) for parts in zip(*best, strict=True))
        results = InstanceData()
        results.bboxes = self.bbox_coder.decode(anchors, deltas, max_shape=img_meta["img_shape"])
        results.scores = scores
        results.level_ids = levels
        results = self._bbox_post_process(
            results=results, cfg=cfg, rescale=rescale, with_nms=with_nms, img_meta=img_meta
        )
        results.scores = results.scores.sigmoid()
        return results
